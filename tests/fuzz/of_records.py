"""Parsers of recordings: the simulator's records, flight logs, reports, remembered state, models."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer

from nfpo_deploy.errors import NfpoError, SafetyError, TransportError, WebError
from nfpo_deploy.factory_mode import FactoryMode
from nfpo_deploy.flight_log.errors import FlightLogError
from nfpo_deploy.flight_log.folder import read_record
from nfpo_deploy.flight_log.reader import LogReader
from nfpo_deploy.flight_log.repair import repair_file
from nfpo_deploy.flight_log.timeline import analyse, robot_state_tick
from nfpo_deploy.transport.dds_version import library_version
from nfpo_deploy.web.access import choose_token
from nfpo_deploy.web.shapes import read_bodies
from robots.loader import ROBOTS_DIR
from robots.untrusted import UntrustedError, load_npz
from sim2real_checks.robot_sim.recorder import load_record, row_dtype
from sim2real_checks.validation.pictures import read_film, strip_times
from sim2real_checks.walk.pictures import read_report, strip_moments
from tests.fuzz.mutations import mutate_bytes, mutate_tree
from tests.fuzz.parser import Parser

META = json.dumps({"robot": "go2", "timestep": 0.001})


@lru_cache
def _rows() -> np.ndarray:
    rows = np.zeros(20, row_dtype(19, 18, 12, 4))
    rows["time"] = np.arange(20) * 0.005
    return rows


@lru_cache
def _npz() -> bytes:
    stream = io.BytesIO()
    columns: Any = {name: _rows()[name] for name in _rows().dtype.names or ()}
    np.savez_compressed(stream, meta=np.array(META), **columns)
    return stream.getvalue()


def _npy(header: bytes, body: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


HEADERS = (
    b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n",
    b"{'descr': '<f8', 'fortran_order': True, 'shape': ()}\n",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,)}\n", b"{'descr': '|V0', 'shape': (5,)}\n",
    b"{'descr': '<U9999999', 'fortran_order': False, 'shape': (3,)}\n", b"[" * 1000, b"{'shape': (-1,)}\n", b"\xff\n",
    b"{'descr': [('a', '<f8'), ('b', '|O')], 'fortran_order': False, 'shape': (2,)}\n", b"__import__('os')\n",
)  # fmt: skip


def generate_npz(rng: random.Random) -> bytes:
    """An .npz with one damaged member, or damaged as a whole."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, _npz())
    stream = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(_npz())) as old, zipfile.ZipFile(stream, "w", kind) as new:
        victim = rng.choice(("meta.npy", "qpos.npy", rng.choice(old.namelist())))
        for member in old.namelist():
            content = old.read(member)
            if member == victim:
                odd = _npy(rng.choice(HEADERS), rng.randbytes(64))
                content = odd if rng.random() < 0.5 else mutate_bytes(rng, content)
            if member != victim or rng.random() < 0.9:
                new.writestr(rng.choice(("../x.npy", "x")) if rng.random() < 0.02 else member, content)
    return stream.getvalue()


def run_npz(data: bytes, scratch: Path) -> None:
    """An archive of arrays."""
    (scratch / "x.npz").write_bytes(data)
    load_npz(scratch / "x.npz", 1 << 24)


def run_record(data: bytes, scratch: Path) -> None:
    """A complete record of the simulator."""
    (scratch / "record.npz").write_bytes(data)
    columns, meta = load_record(scratch / "record.npz")
    assert isinstance(columns["qpos"], np.ndarray)


@lru_cache
def _raw() -> bytes:
    described = [[n, _rows().dtype[n].base.str, list(_rows().dtype[n].shape)] for n in _rows().dtype.names or ()]
    header = json.dumps({"dtype": described, "meta": META}).encode()
    return len(header).to_bytes(8, "little") + header + _rows().tobytes()


def generate_partial(rng: random.Random) -> bytes:
    """The raw file of a killed run, its header damaged as JSON, or its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, _raw())
    size = int.from_bytes(_raw()[:8], "little")
    header: Any = mutate_tree(rng, json.loads(_raw()[8 : 8 + size]))
    if isinstance(header, dict) and isinstance(header.get("dtype"), list) and header["dtype"] and rng.random() < 0.5:
        column = rng.choice(header["dtype"])
        if isinstance(column, list) and len(column) == 3:
            column[1] = rng.choice(("|O", "|V0", "<U5", "<M8[s]", "<f16", "i", "f8,f8", "<f8", "S0", "O"))
            column[2] = rng.choice(([], [0], [2**40], [-1], [2**31, 2**31], ["x"], [1.5], column[2]))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + _raw()[8 + size :]


def run_partial(data: bytes, scratch: Path) -> None:
    """What a killed simulator left; every value is looked at."""
    (scratch / "run.npz.partial").write_bytes(data)
    columns, _ = load_record(scratch / "run.npz.partial")
    for column in columns.values():
        repr(np.asarray(column)[:2])


SCHEMA = b"string reason\nuint8 mode\nuint32 seq\nfloat64[] q\n"


@lru_cache
def _mcap(compressed: bool, chunked: bool) -> bytes:
    stream = io.BytesIO()
    compression = CompressionType.ZSTD if compressed else CompressionType.NONE
    writer = Writer(stream, chunk_size=300, compression=compression, use_chunking=chunked, enable_crcs=compressed)
    writer.start("ros2", "nfpo flight recorder")
    schema = writer.register_schema("nfpo_msgs/msg/SafetyPermit", "ros2msg", SCHEMA)
    channel = writer.register_channel("/nfpo/permit", "cdr", schema, {"writer": "x"})
    for i in range(20):
        body = b"\x00\x01\x00\x00" + struct.pack("<I", 5) + b"DAMP\0" + bytes([2, 0, 0]) + struct.pack("<II", i, 0)
        writer.add_message(channel, 10**18 + i * 10**7, body, 10**18 + i * 10**7, i)
    writer.add_metadata("nfpo", {"robot": "go2"})
    writer.add_attachment(1, 2, "params.yaml", "text/plain", b"a: 1")
    writer.finish()
    return stream.getvalue()


def generate_log(rng: random.Random) -> bytes:
    """A flight log: compressed or not, damaged or cut."""
    kinds = ((True, True), (False, True), (False, False))
    seed = _mcap(*rng.choice(kinds))
    return mutate_bytes(rng, seed, [_mcap(*kind) for kind in kinds] + [SCHEMA, b"float64[999999999] q\n", b"A[] a\n"])


def run_log(data: bytes, scratch: Path) -> None:
    """Read and explained."""
    (scratch / "log.mcap").write_bytes(data)
    analyse([scratch / "log.mcap"])


def run_repair(data: bytes, scratch: Path) -> None:
    """Given its end back; what comes out is complete."""
    source, target = scratch / "cut.mcap", scratch / "whole.mcap"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    repair_file(source, target)
    reader = LogReader(target)
    assert all(message.channel for message in reader.messages())
    assert reader.finished and not reader.problems


def run_session(data: bytes, scratch: Path) -> None:
    """A session's own description."""
    (scratch / "session.json").write_bytes(data)
    record = read_record(scratch / "session.json")
    assert record is None or isinstance(record, dict)


def run_tick(data: bytes, scratch: Path) -> None:
    """The tick within a serialised RobotState; its errors are documented."""
    assert 0 <= robot_state_tick(data) < 2**32


def run_factory_mode(data: bytes, scratch: Path) -> None:
    """The remembered factory controller."""
    mode = FactoryMode("eth0", 0, scratch)
    mode.path.write_bytes(data)
    assert isinstance(mode.recall(), str)


def run_token(data: bytes, scratch: Path) -> None:
    """The web page's token file."""
    path = scratch / "token"
    path.write_bytes(data)
    path.chmod(0o600)
    assert len(choose_token("0.0.0.0", str(path))) >= 16


MODEL = ROBOTS_DIR / "go2/go2.xml"
XML_TRICKS = (
    b'<!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><mujoco>&b;</mujoco>',
    b"<body>" * 3000, b'<geom type="mesh"/>', b'pos="nan nan nan"', b'axis="0 0 0"', b'class="nowhere"', b'size=""',
)  # fmt: skip


def generate_model(rng: random.Random) -> bytes:
    """The robot's MJCF, damaged."""
    raw = MODEL.read_bytes()
    if rng.random() < 0.5:
        words = raw.split(b'"')
        words[2 * rng.randrange(len(words) // 2) + 1] = rng.choice(
            (b"", b"nan", b"0 0 0", b"1e999", b"x", b"1 2", b"-1")
        )
        return b'"'.join(words)
    return mutate_bytes(rng, raw, XML_TRICKS)


def run_model(data: bytes, scratch: Path) -> None:
    """The shapes that the web page draws."""
    (scratch / "model.xml").write_bytes(data)
    read_bodies(scratch / "model.xml")


def run_library(data: bytes, scratch: Path) -> None:
    """The version within a library's file."""
    (scratch / "libddsc.so").write_bytes(data)
    library_version(scratch / "libddsc.so")


SEGMENT = {"name": "forward", "start": 1.0, "end": 3.0, "command": [0.6, 0, 0], "mean_velocity": [0.5, 0.0, 0.1]}
WALK = {"segments": [SEGMENT, SEGMENT | {"command": [0, 0, 0.8]}], "verdict": "ok"}


def generate_report(rng: random.Random) -> bytes:
    """A walk's report."""
    return mutate_bytes(rng, json.dumps(mutate_tree(rng, WALK)).encode(), (b"[" * 3000,))


def run_report(data: bytes, scratch: Path) -> None:
    """The moments of a walk that are worth a picture."""
    (scratch / "report.json").write_bytes(data)
    columns = {"time": np.arange(0.0, 10.0, 0.01), "qpos": np.zeros((1000, 19))}
    report = read_report(scratch / "report.json")
    if report["segments"] and all(1 <= (s["start"] + s["end"]) / 2 <= 9 for s in report["segments"]):
        strip_moments(report, columns, 5)


@lru_cache
def _film() -> bytes:
    about = {"robot": "go2", "scenario": {"name": "x"}, "seed": 0, "ended": ""}
    stream = io.BytesIO()
    np.savez_compressed(
        stream, about=np.array(json.dumps(about)), time=np.arange(5.0), pose=np.zeros((5, 7)), q=np.zeros((5, 12))
    )
    return stream.getvalue()


def generate_film(rng: random.Random) -> bytes:
    """A film of a failed run, damaged."""
    return mutate_bytes(rng, _film())


def run_film(data: bytes, scratch: Path) -> None:
    """A film, and the moments of its pictures."""
    (scratch / "film.npz").write_bytes(data)
    film, about = read_film(scratch / "film.npz")
    strip_times(film["time"], bool(about["ended"]))


def run_results(data: bytes, scratch: Path) -> None:
    """Results of an interrupted fault campaign."""
    from sim2real_checks.faults.campaign import RESULTS, Campaign

    campaign = Campaign.__new__(Campaign)
    campaign._path = scratch / RESULTS
    campaign._path.write_bytes(data)
    campaign.done()


def generate_results(rng: random.Random) -> bytes:
    """Lines of results."""
    row = {"fault": "kill", "target": "sdk_bridge", "mode": "walk", "repeat": 0, "ok": True, "passed": 1.0}
    lines = [json.dumps(mutate_tree(rng, row)).encode() for _ in range(3)]
    return mutate_bytes(rng, b"\n".join(lines) + b"\n", (b"[" * 3000,))


def _session() -> bytes:
    return json.dumps({"format": 1, "state": "recording", "robot": "go2"}).encode()


PARSERS = (
    Parser(
        "film", ("sim2real_checks/validation/pictures.py",), generate_film, run_film, (UntrustedError,),
        lambda: [_film()],
    ),
    Parser("npz", ("robots/untrusted.py",), generate_npz, run_npz, (UntrustedError,), lambda: [_npz()]),
    Parser(
        "simulator record", ("sim2real_checks/robot_sim/recorder.py",), generate_npz, run_record, (ValueError,),
        lambda: [_npz()],
    ),
    Parser(
        "partial record", ("sim2real_checks/robot_sim/rawfile.py",), generate_partial, run_partial, (ValueError,),
        lambda: [_raw(), _raw()[:-7]],
    ),
    Parser(
        "flight log",
        tuple(f"nfpo_deploy/flight_log/{name}.py" for name in ("reader", "timeline", "decoding")),
        generate_log, run_log, (FlightLogError,), lambda: [_mcap(True, True), _mcap(False, False)],
    ),
    Parser(
        "flight log repair", ("nfpo_deploy/flight_log/repair.py",), generate_log, run_repair, (FlightLogError,),
        lambda: [_mcap(True, True), _mcap(True, True)[:-50]],
    ),
    Parser(
        "flight log session", ("nfpo_deploy/flight_log/folder.py",),
        lambda rng: mutate_bytes(rng, json.dumps(mutate_tree(rng, json.loads(_session()))).encode(), (b"[" * 3000,)),
        run_session, (), lambda: [_session()],
    ),
    Parser(
        "RobotState tick", (), lambda rng: mutate_bytes(rng, b"\x00\x01\x00\x00" + bytes(8) + _frame() + bytes(40)),
        run_tick, (ValueError, struct.error), lambda: [b"\x00\x01\x00\x00" + bytes(8) + _frame() + bytes(40)],
    ),
    Parser(
        "factory mode", ("nfpo_deploy/factory_mode.py",),
        lambda rng: mutate_bytes(rng, json.dumps(mutate_tree(rng, {"name": "normal", "released": "2026"})).encode(),
                                 (b"[" * 3000,)),
        run_factory_mode, (SafetyError,), lambda: [b'{"name": "normal", "released": "2026-01-01"}'],
    ),
    Parser(
        "token file", ("nfpo_deploy/web/access.py",), lambda rng: mutate_bytes(rng, b"0123456789abcdefghij\n"),
        run_token, (WebError,), lambda: [b"0123456789abcdefghij\n"],
    ),
    Parser(
        "model shapes", ("nfpo_deploy/web/shapes.py",), generate_model, run_model, (WebError,),
        lambda: [MODEL.read_bytes()],
    ),
    Parser(
        "DDS library", ("nfpo_deploy/transport/dds_version.py",),
        lambda rng: mutate_bytes(rng, b"\x7fELF" + bytes(50) + b"\x000.10.2\x00" + bytes(50), (b"\x0011.0.1\x00",)),
        run_library, (TransportError,), lambda: [b"\x7fELF" + bytes(50) + b"\x000.10.2\x00" + bytes(50)],
    ),
    Parser(
        "campaign results", ("sim2real_checks/faults/campaign.py",), generate_results, run_results, (NfpoError,),
        lambda: [b""],
    ),
    Parser(
        "walk report", ("sim2real_checks/walk/pictures.py",), generate_report, run_report, (ValueError,),
        lambda: [json.dumps(WALK).encode()],
    ),
)  # fmt: skip


def _frame() -> bytes:
    return struct.pack("<I", 10) + b"base_link\0"
