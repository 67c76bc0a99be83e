"""Only Cyclone DDS 0.10.x may meet a robot."""

from pathlib import Path

import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.dds_version import (
    check_dds_version,
    library_version,
    loaded_library,
    require_supported_dds,
)


@pytest.mark.parametrize("version", ["0.10.2", "0.10.5"])
def test_supported_versions_pass(version):
    check_dds_version(version)


@pytest.mark.parametrize("version", ["11.0.1", "0.11.0", "0.9.1", "0.1.0", "0.100.2", "", "0.10", "0.10.2-rc1"])
def test_other_versions_are_refused_with_a_remedy(version):
    with pytest.raises(TransportError) as caught:
        check_dds_version(version)
    message = str(caught.value)
    assert repr(version) in message and "0.10.x" in message and "pip install" in message


def test_version_is_read_from_the_library_itself(tmp_path):
    """The PyPI wheel named 0.10.2 for Python 3.10 carries 0.11.0: a file's name proves nothing."""
    library = tmp_path / "libddsc.so.0.10.2"
    library.write_bytes(b"\x7fELF..\x00config\x000.11.0\x00localhost\x00127.0.0.1\x00")
    assert library_version(library) == "0.11.0"


@pytest.mark.parametrize("content", [b"\x7fELF no version", b"\x000.10.2\x000.11.0\x00"])
def test_unclear_version_is_refused(tmp_path, content):
    library = tmp_path / "libddsc.so"
    library.write_bytes(content)
    with pytest.raises(TransportError, match="cannot tell the version"):
        library_version(library)


def test_missing_library_is_refused(tmp_path):
    with pytest.raises(TransportError, match="cannot read"):
        library_version(tmp_path / "libddsc.so")


def test_loaded_library_is_the_one_that_is_mapped():
    pytest.importorskip("cyclonedds")
    path = loaded_library()
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libddsc" in line}
    assert str(path) in mapped
    assert require_supported_dds() == library_version(path)


def test_opening_a_transport_checks_the_version(monkeypatch):
    pytest.importorskip("cyclonedds")
    from nfpo_deploy.transport import dds_version, open_transport
    from robots.loader import load_robot

    monkeypatch.setattr(dds_version, "library_version", lambda path: "11.0.1")
    with pytest.raises(TransportError, match=r"'11\.0\.1', expected 0\.10\.x"):
        open_transport(load_robot("go2"), "lo", 13)
