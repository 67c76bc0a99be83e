"""Who sends: what DDS discovery knows about the writer of a sample.

Cyclone DDS tells every participant the others' host, process and process id, so that a conflict on the wire can be
named ("process python, pid 4711, on host lab-pc"). Other implementations tell less; what is missing is "unknown".
"""

from __future__ import annotations

import ctypes
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
_MAX_CACHED = 256
_TEXT_LIMIT = 120
# Properties of a participant in Cyclone DDS (ddsi/q_protocol.h).
_PROPERTIES = {"host": "__Hostname", "process": "__ProcessName", "pid": "__Pid", "address": "__NetworkAddresses"}


@dataclass(frozen=True)
class Publisher:
    """One writer on the network. Text that its participant does not tell, or has taken with it, is "unknown"."""

    user_data: bytes = b""
    """What the program put into its writer's UserData; empty for all of Unitree's programs."""
    guid: str = UNKNOWN
    """Identity of the writer, 32 hexadecimal digits."""
    participant: str = UNKNOWN
    """Identity of its participant, the same for all writers of one program."""
    host: str = UNKNOWN
    process: str = UNKNOWN
    pid: str = UNKNOWN
    address: str = UNKNOWN
    """Where it listens, as "udp/192.168.123.161:7411@2"."""

    def describe(self) -> str:
        """For people: "process X (pid 4711) on host Y (address)"; a program of this host with its arguments."""
        process = _command_line(self.pid) if self.host == socket.gethostname() else ""
        return f"process {process or self.process} (pid {self.pid}) on host {self.host} ({self.address})"


class _Guid(ctypes.Structure):
    _fields_ = [("v", ctypes.c_uint8 * 16)]


class _Endpoint(ctypes.Structure):
    """`dds_builtintopic_endpoint_t`."""

    _fields_ = [
        ("key", _Guid),
        ("participant_key", _Guid),
        ("participant_instance_handle", ctypes.c_uint64),
        ("topic_name", ctypes.c_char_p),
        ("type_name", ctypes.c_char_p),
        ("qos", ctypes.c_void_p),
    ]


class _Library:
    """The functions of libddsc that its Python package lacks, with types of their own."""

    def __init__(self) -> None:
        from cyclonedds.internal import DDS

        handle = DDS._dll_handle
        pointer, entity, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_size_t

        def function(name: str, result: Any, *arguments: Any) -> Any:
            # A prototype of our own leaves the types that the package set on its functions alone.
            return ctypes.CFUNCTYPE(result, *arguments)((name, handle))

        self.publication = function(
            "dds_get_matched_publication_data", ctypes.POINTER(_Endpoint), entity, ctypes.c_uint64
        )
        self.free_endpoint = function("dds_builtintopic_free_endpoint", None, ctypes.POINTER(_Endpoint))
        self.user_data = function(
            "dds_qget_userdata", ctypes.c_bool, pointer, ctypes.POINTER(pointer), ctypes.POINTER(size)
        )
        self.free = function("dds_free", None, pointer)
        self.matched = function(
            "dds_get_matched_publications", ctypes.c_int32, entity, ctypes.POINTER(ctypes.c_uint64), size
        )


class PublisherDirectory:
    """Looks publishers up for the readers of one participant and remembers them. Not thread-safe."""

    def __init__(self, participant: Any) -> None:
        self._participant = participant
        self._library = _Library()
        self._participants: Any = None
        self._known: dict[int, Publisher] = {}

    def find(self, reader: Any, handle: int) -> Publisher:
        """The publisher with publication handle `handle` of a sample from `reader`; all "unknown" if it is gone.

        Takes microseconds for one that was asked for before, up to about a millisecond for a new one.
        """
        known = self._known.get(handle)
        if known is not None:
            return known
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        publisher = self._look_up(reader, handle)
        # One that discovery has forgotten may be found later under the same handle: only knowledge is kept.
        if publisher.guid != UNKNOWN:
            self._known[handle] = publisher
        return publisher

    def matched(self, reader: Any) -> list[Publisher]:
        """All writers that send to `reader` now, whether or not they have sent anything."""
        handles = (ctypes.c_uint64 * 64)()
        count = self._library.matched(reader._ref, handles, len(handles))
        return [self.find(reader, handles[i]) for i in range(max(0, min(count, len(handles))))]

    def _look_up(self, reader: Any, handle: int) -> Publisher:
        endpoint = self._library.publication(reader._ref, handle)
        if not endpoint:
            return Publisher()
        try:
            content = endpoint.contents
            participant = bytes(content.participant_key.v)
            return Publisher(
                user_data=self._user_data_of(content.qos),
                guid=bytes(content.key.v).hex(),
                participant=participant.hex(),
                **self._participant_texts(participant),
            )
        finally:
            self._library.free_endpoint(endpoint)

    def _user_data_of(self, qos: int | None) -> bytes:
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        if not qos or not self._library.user_data(qos, ctypes.byref(data), ctypes.byref(size)) or not data:
            return b""
        content = ctypes.string_at(data, size.value)
        self._library.free(data)
        return content

    def participants(self) -> list[Publisher]:
        """All participants that discovery knows, this one included, also those that write nothing."""
        return [
            Publisher(user_data=b"", guid=UNKNOWN, participant=sample.key.bytes.hex(), **self._texts(sample))
            for sample in self._discovered()
        ]

    def _participant_texts(self, key: bytes) -> dict[str, str]:
        for sample in self._discovered():
            if sample.key.bytes == key:
                return self._texts(sample)
        return {}

    def _discovered(self) -> list[Any]:
        from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant
        from cyclonedds.core import DDSException

        try:
            if self._participants is None:
                self._participants = BuiltinDataReader(self._participant, BuiltinTopicDcpsParticipant)
            samples = self._participants.read(_MAX_CACHED)
        except DDSException:
            return []
        return [sample for sample in samples if getattr(getattr(sample, "key", None), "bytes", None) is not None]

    @staticmethod
    def _texts(sample: Any) -> dict[str, str]:
        told = {policy.key: policy.value for policy in sample.qos if hasattr(policy, "key")}
        return {name: _clean(told.get(label, "")) for name, label in _PROPERTIES.items()}


def _clean(text: str) -> str:
    """What a stranger on the network says of itself, fit for a terminal and a log."""
    printable = "".join(character for character in text if character.isprintable()).strip()
    return printable[:_TEXT_LIMIT] or UNKNOWN


def _command_line(pid: str) -> str:
    """Program and first arguments of a process of this host, "" where it cannot be read."""
    if not pid.isdigit() or int(pid) == os.getpid():
        return ""
    try:
        words = Path(f"/proc/{int(pid)}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return _clean(" ".join(words)) if any(words) else ""
