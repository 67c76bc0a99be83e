"""What DDS participants say of themselves when they announce themselves: vendor, version, process.

Pure parser of the discovery packets (SPDP) of DDSI-RTPS 2.5 (OMG formal/2022-04-01: 8.3 messages, 9.4 encoding, 9.6
parameters). Cyclone DDS adds a parameter with its version, from which a foreign version is known before any topic is
matched. Packets come from anybody on the network: every length is checked before it is used.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from nfpo_deploy.errors import TransportError

CYCLONE = 0x0110
VENDORS = {
    0x0101: "RTI Connext", 0x0102: "OpenSplice", 0x0103: "OpenDDS", 0x0106: "CoreDX", 0x010A: "InterCOM",
    0x010F: "Fast DDS", CYCLONE: "Cyclone DDS", 0x0111: "GurumDDS", 0x0112: "RustDDS", 0x0114: "Dust DDS",
}  # fmt: skip
"""Vendor ids that OMG lists (https://www.dds-foundation.org/dds-rtps-vendor-and-product-ids/)."""

_HEADER = struct.Struct(">4sBBH12s")
_DATA, _INFO_TS, _PAD = 0x15, 0x09, 0x01
_SPDP_WRITER = 0x000100C2
_PL_CDR_BE, _PL_CDR_LE = 0x0002, 0x0003
_FLAG_INLINE_QOS, _FLAG_DATA = 0x02, 0x04
_PID_SENTINEL, _PID_LIST_END_PAD = 0x0001, 0x0000
_PID_GUID, _PID_NAME, _PID_PROPERTIES, _PID_STATUS = 0x0050, 0x0062, 0x0059, 0x0071
_PID_LOCATORS = (0x0031, 0x0032)
_PID_CYCLONE_VERSION = 0x8007
_VERSION_TEXT_AT = 20
"""Cyclone's version parameter: five 32-bit words (version, flags, three unused), then the text."""
_UDP_V4 = 1
_MAX_PROPERTIES, _MAX_TEXT = 16, 200


class SpdpError(TransportError):
    """A packet claims to be discovery and breaks the format."""


@dataclass(frozen=True)
class PeerVersion:
    """One participant as it announced itself; text that it did not tell is ""."""

    guid: str
    """Its GUID prefix, 24 hexadecimal digits."""
    vendor: str
    """Name of the implementation, "vendor 0x...." where it is not known."""
    vendor_id: int
    protocol: str
    """RTPS version, as "2.1"."""
    version: str = ""
    """Version of Cyclone DDS, as "0.10.2"; other vendors do not tell."""
    host: str = ""
    process: str = ""
    pid: str = ""
    name: str = ""
    addresses: tuple[str, ...] = ()
    """IPv4 addresses on which it listens."""
    gone: bool = False
    """Whether the packet says goodbye instead."""

    def describe(self) -> str:
        """For people: "Cyclone DDS 11.0.1 (process python, pid 4711, host lab-pc, 192.168.123.5)"."""
        parts = [f"{label}{text}" for label, text in (("process ", self.process), ("pid ", self.pid)) if text]
        parts += [f"host {self.host}"] if self.host else []
        parts += [", ".join(self.addresses)] if self.addresses else []
        return f"{self.vendor} {self.version}".strip() + (f" ({', '.join(parts)})" if parts else "")


def parse_announcement(packet: bytes) -> PeerVersion | None:
    """The participant that a UDP packet announces; None for a packet of RTPS without an announcement.

    Raises:
        SpdpError: not RTPS, or a length that does not fit the packet.
    """
    if len(packet) < 20 or packet[:4] != b"RTPS":
        raise SpdpError(f"expected an RTPS packet of at least 20 bytes, got {len(packet)} bytes {packet[:4]!r}")
    _, major, minor, vendor, prefix = _HEADER.unpack_from(packet)
    header = PeerVersion(prefix.hex(), VENDORS.get(vendor, f"vendor 0x{vendor:04x}"), vendor, f"{major}.{minor}")
    position = 20
    while position + 4 <= len(packet):
        kind, flags = packet[position], packet[position + 1]
        (length,) = struct.unpack_from("<H" if flags & 1 else ">H", packet, position + 2)
        start = position + 4
        end = start + length
        if length == 0 and kind not in (_INFO_TS, _PAD):
            end = len(packet)  # 8.3.3.2.3: the last submessage may leave its length at zero
        if end > len(packet):
            raise SpdpError(f"submessage 0x{kind:02x} of {length} bytes at {position} exceeds the packet")
        if kind == _DATA and end - start >= 20:
            found = _announcement(packet[start:end], flags, header)
            if found is not None:
                return found
        position = end
    return None


def _announcement(body: bytes, flags: int, header: PeerVersion) -> PeerVersion | None:
    order = "<" if flags & 1 else ">"
    (writer,) = struct.unpack_from(">I", body, 8)
    if writer != _SPDP_WRITER:
        return None
    (to_inline,) = struct.unpack_from(order + "H", body, 2)
    position = 4 + to_inline
    gone = False
    if flags & _FLAG_INLINE_QOS:
        values, position = _parameters(body, position, order)
        status = values.get(_PID_STATUS, [b""])[0]
        gone = len(status) >= 4 and bool(status[3] & 3)  # disposed or unregistered, 9.6.4.9
    if not flags & _FLAG_DATA:
        return _fill(header, {}, order, True) if gone else None
    if position + 4 > len(body):
        raise SpdpError(f"announcement ends at {len(body)}, before its content at {position}")
    (encoding,) = struct.unpack_from(">H", body, position)
    if encoding not in (_PL_CDR_BE, _PL_CDR_LE):
        raise SpdpError(f"announcement in encoding 0x{encoding:04x}, expected a parameter list (0x0002 or 0x0003)")
    order = "<" if encoding == _PL_CDR_LE else ">"
    values, _ = _parameters(body, position + 4, order)
    return _fill(header, values, order, gone)


def _parameters(body: bytes, position: int, order: str) -> tuple[dict[int, list[bytes]], int]:
    """Values by parameter id, and the position after the list."""
    values: dict[int, list[bytes]] = {}
    while True:
        if position + 4 > len(body):
            raise SpdpError(f"parameter list runs past the end of its submessage ({len(body)} bytes)")
        pid, length = struct.unpack_from(order + "HH", body, position)
        position += 4
        if pid == _PID_SENTINEL:
            return values, position
        if position + length > len(body):
            raise SpdpError(f"parameter 0x{pid:04x} of {length} bytes at {position} exceeds its submessage")
        if pid != _PID_LIST_END_PAD:
            values.setdefault(pid, []).append(body[position : position + length])
        position += length


def _fill(header: PeerVersion, values: dict[int, list[bytes]], order: str, gone: bool) -> PeerVersion:
    guid = values.get(_PID_GUID, [b""])[0]
    properties = _properties(values.get(_PID_PROPERTIES, [b""])[0], order)
    locators = [locator for pid in _PID_LOCATORS for locator in values.get(pid, [])]
    addresses = {address for locator in locators if (address := _address(locator, order))}
    return PeerVersion(
        guid=guid[:12].hex() if len(guid) >= 12 else header.guid,
        vendor=header.vendor,
        vendor_id=header.vendor_id,
        protocol=header.protocol,
        version=_cyclone_version(values.get(_PID_CYCLONE_VERSION, [b""])[0], order, header.vendor_id),
        host=properties.get("__Hostname", ""),
        process=properties.get("__ProcessName", ""),
        pid=properties.get("__Pid", ""),
        name=_text(values.get(_PID_NAME, [b""])[0], 0, order)[0],
        addresses=tuple(sorted(addresses)),
        gone=gone,
    )


def _cyclone_version(value: bytes, order: str, vendor_id: int) -> str:
    """The version in a text such as "host/0.10.2/Linux/Linux"."""
    if vendor_id != CYCLONE:
        return ""
    parts = _text(value, _VERSION_TEXT_AT, order)[0].split("/")
    # A host name holds no slash, hence the version is always the second part.
    return parts[1] if len(parts) >= 2 else ""


def _properties(value: bytes, order: str) -> dict[str, str]:
    if len(value) < 4:
        return {}
    (count,) = struct.unpack_from(order + "I", value)
    position, found = 4, {}
    for _ in range(min(count, _MAX_PROPERTIES)):
        name, position = _text(value, position, order)
        text, position = _text(value, position, order)
        if name:
            found[name] = text
    return found


def _text(value: bytes, position: int, order: str) -> tuple[str, int]:
    """A CDR string that may be cut off: what is there, fit for a terminal, and the aligned position after it."""
    if position + 4 > len(value):
        return "", len(value)
    (length,) = struct.unpack_from(order + "I", value, position)
    start = position + 4
    end = min(start + length, len(value))
    raw = value[start : min(end, start + _MAX_TEXT)].split(b"\0")[0].decode(errors="replace")
    return "".join(character for character in raw if character.isprintable()), (end + 3) // 4 * 4


def _address(locator: bytes, order: str) -> str:
    if len(locator) < 24 or struct.unpack_from(order + "i", locator)[0] != _UDP_V4:
        return ""
    return socket.inet_ntoa(locator[20:24])
