"""Sockets that hear one network interface only, for libraries that bind every address of the host.

Cyclone DDS 0.10 binds its receiving sockets to 0.0.0.0 whatever interface it is given (`ddsi_udp_create_conn`), so
without this a program on any network of this host could speak with it. A filter in the kernel drops what came in
elsewhere; it needs no privilege. Binding to the interface itself would not do: messages between two processes of this
host arrive on the loopback interface even when they use the address of another one.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterable

_SO_ATTACH_FILTER = 26
# Classic BPF (linux/filter.h): load a word, compare with a constant, return.
_LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_INTERFACE_INDEX = 0xFFFFF000 + 8
"""SKF_AD_OFF + SKF_AD_IFINDEX: where the filter finds the index of the interface that a packet came in on."""
_WHOLE_PACKET = 0x40000


def open_sockets() -> set[int]:
    """Descriptors of this process that are IPv4 UDP sockets bound to 0.0.0.0."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as copy:
                if copy.family == socket.AF_INET and copy.type == socket.SOCK_DGRAM:
                    if copy.getsockname()[0] == "0.0.0.0" and copy.getsockname()[1]:
                        found.add(int(name))
        except OSError:  # closed meanwhile
            continue
    return found


def hear_only(descriptors: Iterable[int], interface: str) -> list[int]:
    """Make sockets drop every packet that comes neither from `interface` nor from this host itself.

    Args:
        descriptors: UDP sockets of this process.
        interface: name of a network interface; with `lo` nothing from outside is heard.

    Returns:
        Ports of the sockets, sorted.

    Raises:
        OSError: no such interface, or the kernel refuses the filter.
    """
    indices = sorted({socket.if_nametoindex("lo"), socket.if_nametoindex(interface)})
    # Each comparison jumps over the rest and the "drop" to the last line.
    program = [(_LOAD_WORD, 0, 0, _INTERFACE_INDEX)]
    program += [(_JUMP_EQUAL, len(indices) - i, 0, index) for i, index in enumerate(indices)]
    program += [(_RETURN, 0, 0, 0), (_RETURN, 0, 0, _WHOLE_PACKET)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    option = struct.pack("@HP", len(program), ctypes.addressof(code))
    ports = []
    for descriptor in descriptors:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            copy.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
            ports.append(copy.getsockname()[1])
    return sorted(ports)
