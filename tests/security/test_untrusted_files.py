"""Files from outside: bounded before anything is built from them, refused by name, never executed."""

import io
import json
import os
import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from robots.loader import ROBOTS_DIR
from robots.untrusted import MAX_DEPTH, UntrustedError, check_zip, load_json, load_npz, load_yaml, read_bounded

SHIPPED = sorted(p for p in ROBOTS_DIR.parent.glob("*/**/*.yaml") if ".venv" not in p.parts and "build" not in p.parts)


def laughs(lines: int) -> str:
    """The "billion laughs" document: each line names the one before nine times."""
    text = ["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    text += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, lines)]
    return "\n".join(text)


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


# --- YAML -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shipped_yaml_is_read_as_the_library_reads_it(path):
    import yaml

    assert load_yaml(path.read_bytes()) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(9), r"alias \*l0 at line 2"),
        ("&a [*a]", r"alias \*a"),
        ("a: &x {b: 1}\nc:\n  <<: *x", r"alias \*x"),
        ("!!python/object/apply:os.mkdir [/tmp/never]", "tag .*os.mkdir"),
        ("!!binary aGk=", "tag .*binary"),
        ("a: 1\nb: 2\na: 3", "keys given twice: a"),
        ("outer:\n  a: 1\n  a: 1", "keys given twice: a"),
        ("1: a\n1.0: b", "keys given twice"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"nested more than {MAX_DEPTH}"),
        ("[" * 200_000, "nest"),
        ("a:\n" + "".join(" " * i + "b:\n" for i in range(1, 700)), "nested more than"),
        ("a: 1\n---\nb: 2", "more than one YAML document"),
        ("a: 2001-99-99", "month must be"),
        ("a: 0b_", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("? [a, b]\n: 1", "unhashable"),
        ("a: [1, 2", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"a: \xff", "not valid YAML"),
        ("#" * 2_000_000, "at most 1048576"),
    ],
    ids=range(21),
)
def test_bad_yaml_is_refused_at_once(text, message):
    start = time.process_time()
    with pytest.raises(UntrustedError, match=message):
        load_yaml(text)
    assert time.process_time() - start < 2.0


def test_nesting_up_to_the_limit_is_read():
    value = load_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH - 1):
        (value,) = value
    assert value == []


def test_many_equal_keys_are_refused_quickly():
    start = time.process_time()
    with pytest.raises(UntrustedError, match="keys given twice"):
        load_yaml("a: 1\n" * 100_000)
    assert time.process_time() - start < 10.0


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[" * 500_000, '{"a":' * 100_000, "{", "", b"\xff", "[1,]", "1" * 5000])
def test_bad_json_is_refused(text):
    with pytest.raises(UntrustedError):
        load_json(text)


def test_json_is_read_as_the_library_reads_it():
    text = (ROBOTS_DIR / "go2/policies/walk/evaluation.json").read_text()
    assert load_json(text) == json.loads(text)
    with pytest.raises(UntrustedError, match="at most 100"):
        load_json(text, max_bytes=100)


# --- what a path may lead to ----------------------------------------------------------------------


def test_a_pipe_or_a_device_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        start = time.process_time()
        with pytest.raises((UntrustedError, OSError)):
            read_bounded(tmp_path / name)
        assert time.process_time() - start < 1.0


def test_a_link_to_a_file_is_followed_and_a_loop_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    assert read_bounded(tmp_path / "link") == b"content"
    with pytest.raises(OSError):
        read_bounded(tmp_path / "loop")
    with pytest.raises(UntrustedError, match="no file name"):
        read_bounded(Path("a\0b"))


def test_the_size_limit_holds_for_files_that_have_no_size(tmp_path):
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    with pytest.raises(UntrustedError, match="larger than 1000 bytes"):
        read_bounded(tmp_path / "sparse", 1000)
    # Regular by its mode, size 0, but with content.
    assert len(read_bounded(Path("/proc/self/status"))) > 100


# --- archives -------------------------------------------------------------------------------------


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(64):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 100_000
    with pytest.raises(UntrustedError, match="would unpack to 67108864 bytes"):
        load_npz(path, 1 << 20)
    with pytest.raises(UntrustedError, match="compressed in a way not accepted"):
        check_zip(path, 1 << 30, compressed=False)


def test_arrays_of_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "evil.npz"
    evil = np.array([Bomb(tmp_path / "made")], dtype=object)
    np.savez(path, allow_pickle=True, a=evil)
    with pytest.raises(UntrustedError, match="allow_pickle=False"):
        load_npz(path, 1 << 20)
    assert not (tmp_path / "made").exists()
    # The same file does harm where it is let to: the test's bomb is no dud.
    np.load(path, allow_pickle=True)["a"]
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("shape", ["(1152921504606846975,)", "(4294967296, 4294967296)", "(-1,)", "(2,)"])
def test_an_array_that_lies_about_its_shape_is_refused(tmp_path, shape):
    path = tmp_path / "liar.npz"
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8))
    with pytest.raises(UntrustedError, match="not a readable .npz"):
        load_npz(path, 1 << 20)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    for content in (b"", b"PK\x03\x04", pickle.dumps([1]), b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(UntrustedError, match="zip archive"):
            load_npz(path, 1 << 20)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load_npz(path, 1 << 20)


def test_a_good_archive_is_read(tmp_path):
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.arange(5), meta=np.array("text"))
    path = tmp_path / "good.npz"
    path.write_bytes(stream.getvalue())
    arrays = load_npz(path, 1 << 20)
    np.testing.assert_array_equal(arrays["a"], np.arange(5))
    assert str(arrays["meta"]) == "text"
