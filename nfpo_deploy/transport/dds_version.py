"""Refuse every Cyclone DDS but 0.10.x before it can meet a robot.

The robots and Unitree's own SDKs run 0.10.x. A participant of version 11 on the same network makes those
crash or refuse the type, and no setting that prevents it was found, so the version is checked on the library
that is really
loaded: the PyPI wheel named 0.10.2 for Python 3.10, for one, carries libddsc 0.11.0.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from nfpo_deploy.errors import TransportError

SUPPORTED = (0, 10)
_REMEDY = (
    "install Cyclone DDS 0.10.x (Debian and Ubuntu: cyclonedds-dev) and build the Python package against it: "
    "CYCLONEDDS_HOME=<prefix> pip install --no-binary cyclonedds cyclonedds==0.10.2"
)


class _DlInfo(ctypes.Structure):
    _fields_ = [
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    ]


def check_dds_version(version: str) -> None:
    """Accept "0.10.x".

    Raises:
        TransportError: any other version; names what was found, what is expected and the remedy.
    """
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) != SUPPORTED:
        raise TransportError(
            f"loaded Cyclone DDS (libddsc) is version {version!r}, expected 0.10.x: other versions crash a "
            f"Unitree robot's DDS or are crashed by it; {_REMEDY}"
        )


def library_version(path: Path) -> str:
    """Version compiled into a libddsc file: the one string of the form a.b.c among its constants.

    Raises:
        TransportError: unreadable file, or none or several such strings.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TransportError(f"cannot read the Cyclone DDS library {path}: {error}; {_REMEDY}") from error
    found = sorted({match.decode() for match in re.findall(rb"\x00(\d+\.\d+\.\d+)(?=\x00)", content)})
    if len(found) != 1:
        raise TransportError(
            f"cannot tell the version of {path}: expected one version string in it, found {found or 'none'}; {_REMEDY}"
        )
    return found[0]


def loaded_library() -> Path:
    """File of the libddsc that the `cyclonedds` package calls.

    Raises:
        TransportError: the package is missing or its library cannot be found.
    """
    try:
        from cyclonedds.internal import DDS
    except Exception as error:  # the package raises its own exceptions when it cannot load the library
        raise TransportError(f"cannot load the cyclonedds package: {error}; {_REMEDY}") from error
    info = _DlInfo()
    dladdr = ctypes.CDLL(None).dladdr
    dladdr.argtypes = [ctypes.c_void_p, ctypes.POINTER(_DlInfo)]
    function = ctypes.cast(DDS._dll_handle.dds_create_participant, ctypes.c_void_p)
    if not dladdr(function, ctypes.byref(info)):
        raise TransportError(f"cannot find the file of the loaded Cyclone DDS library; {_REMEDY}")
    return Path(info.dli_fname.decode()).resolve()


def require_supported_dds() -> str:
    """Check the loaded library and return its version; raises TransportError like the functions above."""
    version = library_version(loaded_library())
    check_dds_version(version)
    return version
