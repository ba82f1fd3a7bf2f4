"""A file is there as a whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from fasthg.errors import FasthgError
from fasthg.files import (
    Inputs,
    atomic_folder,
    atomic_path,
    check_new,
    make_folder,
    new_folder,
    sha256,
    staged_files,
    write_bytes,
    write_json,
    write_text,
)


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """What a full disk feels like: the system refuses bytes beyond `size` of any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_half(manager: AbstractContextManager[Path], error: type[BaseException]) -> None:
    """Write something and fail before the end."""
    with manager as aside:
        (aside / "half.txt" if aside.is_dir() else aside).write_text("half of the n")
        raise error


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt):
        write_half(atomic_path(path), KeyboardInterrupt)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights.bin"]


def test_nothing_is_seen_under_the_name_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as aside:
        aside.write_text("content")
        assert not path.exists()
        assert aside.suffix == ".txt"  # writers choose the format by it
    assert path.read_text() == "content"


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    write_bytes(path, b"old")
    with limited_file_size(1000), pytest.raises(FasthgError, match=r"cannot write .*weights\.bin: .*choose another"):
        write_bytes(path, b"x" * 5000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights.bin"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FasthgError, match=r"cannot write .*file/sub: a part of the path is a file"):
        write_text(tmp_path / "file" / "sub" / "a.txt", "")
    with pytest.raises(FasthgError, match=r"cannot write .*file: a file of that name is in the way"):
        make_folder(tmp_path / "file")
    with pytest.raises(FasthgError, match="a folder of that name is in the way"):
        write_text(tmp_path, "")
    with pytest.raises(FasthgError, match=r"cannot write /proc/a\.txt"):
        write_text("/proc/a.txt", "")


def test_a_read_only_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses to remove a file, too, before it looks whether there is one."""

    def refuse(path: Path, *_args: object, **_options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    for name in ("touch", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(FasthgError, match=r"cannot write .*a\.txt: the file system is read-only"):
        write_text(tmp_path / "a.txt", "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FasthgError, match="permission denied; choose a folder that you may write"):
        write_text(tmp_path / "a.txt", "")


def test_an_error_of_the_writer_itself_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.txt"):
        raise ZeroDivisionError


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "artefact"
    for generation in ("one", "two"):
        with atomic_folder(target) as aside:
            (aside / "metadata.json").write_text(generation)
            (aside / f"{generation}.onnx").write_text("")
    assert (target / "metadata.json").read_text() == "two"
    assert sorted(os.listdir(target)) == ["metadata.json", "two.onnx"]
    with pytest.raises(ValueError):
        write_half(atomic_folder(target), ValueError)
    assert (target / "metadata.json").read_text() == "two"
    assert os.listdir(tmp_path) == ["artefact"]


def test_a_folder_with_other_peoples_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FasthgError, match=r"holds other files and no metadata\.json"), atomic_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").exists()


def test_names_may_be_as_long_as_the_disk_takes(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 255), "x")
    assert len(os.listdir(tmp_path)[0]) == 255
    with pytest.raises(FasthgError, match="the name is too long; choose a shorter one"):
        write_text(tmp_path / ("n" * 256), "x")
    check_new(tmp_path / ("n" * 256))


def test_a_new_folder_lies_beside_the_one_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for folder in (tmp_path, tmp_path / "inner"):
        (folder / "a.json").touch()
    expected = {".": "results-2", "..": "../results-2", "../inner": "../inner-2", "../inner/": "../inner-2"}
    assert {asked: str(new_folder(asked, ["a.json"])) for asked in expected} == expected


def test_inputs_are_looked_at_once_however_many_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, looks, stat = [f"{number}.png" for number in range(100)], [], os.stat
    for folder in (tmp_path / "photos", tmp_path / "out"):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    monkeypatch.setattr(os, "stat", lambda path, **options: looks.append(path) or stat(path, **options))
    photos = [tmp_path / "photos" / name for name in names]
    assert new_folder(tmp_path / "out", names, photos, overwrite=True) == tmp_path / "out"
    assert len(looks) < 10 * len(names)


def test_an_input_stays_one_under_every_name_and_when_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png", "new.png"):
        (tmp_path / "photos" / name).write_text(name)
    os.link(tmp_path / "photos" / "a.png", tmp_path / "hard.png")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    inputs = Inputs([tmp_path / "photos" / "a.png", "absent.png"])
    os.replace(tmp_path / "photos" / "new.png", tmp_path / "photos" / "a.png")
    for path in (tmp_path / "hard.png", tmp_path / "link" / "a.png", tmp_path / "link", tmp_path):
        assert path in inputs
    assert tmp_path / "photos" / "b.png" not in inputs
    assert tmp_path / "absent.png" not in inputs


def test_staged_files_come_together_beside_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with staged_files(folder) as aside:
        (aside / "a.png").write_text("a")
        assert not (folder / "a.png").exists()
    with pytest.raises(ValueError):
        write_half(staged_files(folder), ValueError)
    assert os.listdir(folder) == ["a.png"]


def test_a_failure_takes_the_new_folder_away_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError), staged_files(tmp_path / "deep" / "out"):
        raise ValueError
    assert os.listdir(tmp_path) == []


def test_json_keeps_numbers_on_one_line_and_reads_back(tmp_path: Path) -> None:
    content = {
        "joints": [[1.5, 2.0], [3.0, 4.25]],
        "names": ["a [b]", "c\nd", "{"],
        "empty": [],
        "nested": [{"x": [1]}],
    }
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == content
    assert "[1.5, 2.0]" in text
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", float("nan"))
    assert os.listdir(tmp_path) == ["a.json"]


def test_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"def")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert sha256(tmp_path / "a", tmp_path / "b") == hashlib.sha256(b"abcdef").hexdigest()
    with pytest.raises(FasthgError, match=r"cannot read .*missing"):
        sha256(tmp_path / "missing")
