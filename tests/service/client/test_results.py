"""The results file: cut off anywhere, it is gone on with; nothing that is not a results file is touched."""

import csv
import errno
import os
from pathlib import Path

import pytest

from service.client import ClientError, Prediction
from service.client.results import ResultsFile, columns

_TOP = (("cat", 0.75), ("dog", 0.125))
_PREDICTIONS = [
    Prediction("plain.jpg", "cat", 0.75, unknown=False, top=_TOP, model="pets", version=3),
    Prediction('a,"b"\r\n\nc\rd.jpg', "cat", 0.75, unknown=True, top=_TOP, model="pets", version=3),
    Prediction("bad.jpg", error='CORRUPT_IMAGE: expected "more",\ngot less'),
    Prediction("no\udcfftext.jpg", "cat", 0.75, unknown=False, top=_TOP[:1], model="pets", version=3),
    Prediction("größe/猫.jpg", "cat", 0.75, unknown=False, top=_TOP, model="pets", version=3),
]


def _write(path: Path, predictions: list[Prediction], **options: bool) -> ResultsFile:
    results = ResultsFile(path, 2, **options)
    results.add([one for one in predictions if one.filename not in results])
    results.close()
    return results


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        return list(csv.DictReader(lines, strict=True))


def test_a_row_says_everything(tmp_path: Path) -> None:
    """Names of any characters come back from any CSV reader; what failed has only its error."""
    results = _write(tmp_path / "r.csv", _PREDICTIONS)
    assert (results.rows, results.failed) == (5, 1)
    first, odd, bad, surrogate, _ = _rows(tmp_path / "r.csv")
    assert list(first) == columns(2)
    assert first == {
        "path": "plain.jpg",
        "label": "cat",
        "score": "0.75",
        "label_2": "dog",
        "score_2": "0.125",
        "unknown": "false",
        "model": "pets",
        "version": "3",
        "error": "",
    }
    assert (odd["path"], odd["unknown"]) == (_PREDICTIONS[1].filename, "true")
    assert {name: value for name, value in bad.items() if value} == {
        "path": "bad.jpg",
        "error": 'CORRUPT_IMAGE: expected "more",\ngot less',
    }
    assert (surrogate["path"], surrogate["label_2"]) == ("no\udcfftext.jpg", "")


def test_a_file_cut_off_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    """At every byte where a kill may have ended it: the next run leaves the same file as one that was not killed."""
    whole = tmp_path / "whole.csv"
    _write(whole, _PREDICTIONS)
    content = whole.read_bytes()
    path = tmp_path / "cut.csv"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        results = _write(path, _PREDICTIONS)
        assert path.read_bytes() == content, length
        assert (results.rows, results.failed) == (5, 1), length


def test_failed_rows_are_dropped_when_asked(tmp_path: Path) -> None:
    """They are asked about again, the others are kept as they are; also after a kill in the middle of dropping."""
    path = tmp_path / "r.csv"
    _write(path, _PREDICTIONS)
    (tmp_path / "r.csv.unfinished").write_bytes(b"x" * 10_000)  # of a run that was killed
    better = [
        *_PREDICTIONS[:2],
        Prediction("bad.jpg", "dog", 1.0, top=(("dog", 1.0),), model="pets", version=3),
        *_PREDICTIONS[3:],
    ]
    assert (_write(path, better).rows, _rows(path)[2]["label"]) == (5, "")
    results = _write(path, better, retry_failed=True)
    assert (results.rows, results.failed) == (5, 0)
    assert [(row["path"], row["label"]) for row in _rows(path)][-1] == ("bad.jpg", "dog")
    assert sorted(row["path"] for row in _rows(path)) == sorted(one.filename for one in _PREDICTIONS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"my notes", "is no results file"),
        (b"my notes\r\n" * 100, "is no results file"),
        (b'{"a": [' + b"1, " * 99 + b"2]}", "is no results file"),
        (b'{"a": [' + b"1, " * 99 + b"2]}\n", "is no results file"),
        (bytes(range(14, 256)), "is no results file"),
        (b"path,label\r\na.jpg,cat\r\n" + b"b.jpg,dog\r\n" * 20, "with 2 labels per image"),
        (b"%HEAD%a.jpg,cat\r\n", "damaged"),
        (b"%HEAD%a.jpg,c,1,d,0,false,pets,3,\nb.jpg,c,1,d,0,false,pets,3,\r\n", "damaged"),
        (b'%HEAD%"a.jpg,c,1,d,0,false,pets,3,\r\n' + b"b.jpg,c,1,d,0,false,pets,3,\r\n" * 5000, "damaged"),
        (b'%HEAD%a"b"\r,c,1,d,0,false,pets,3,\r\n' + b"b.jpg,c,1,d,0,false,pets,3,\r\n" * 5, "damaged"),
    ],
    ids=[
        *("short text", "long text", "JSON", "a line", "bytes", "other columns", "too few columns", "line ends"),
        *("open quote", "stray return"),
    ],
)
def test_what_is_no_results_file_is_left_alone(tmp_path: Path, content: bytes, says: str) -> None:
    """Refused, and not a byte of it changed, however it is opened."""
    path = tmp_path / "r.csv"
    content = content.replace(b"%HEAD%", ",".join(columns(2)).encode() + b"\r\n")
    path.write_bytes(content)
    for retry_failed in (False, True):
        with pytest.raises(ClientError, match=says):
            ResultsFile(path, 2, retry_failed=retry_failed)
        assert path.read_bytes() == content


def test_labels_per_image_cannot_change(tmp_path: Path) -> None:
    """The columns would not fit."""
    _write(tmp_path / "r.csv", _PREDICTIONS)
    with pytest.raises(ClientError, match="no results file with 3 labels per image"):
        ResultsFile(tmp_path / "r.csv", 3)


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    """The second is refused, while and only while the first goes on, also when the first has replaced the file."""
    path = tmp_path / "r.csv"
    _write(path, _PREDICTIONS)
    for retry_failed in (False, True):
        first = ResultsFile(path, 2, retry_failed=retry_failed)
        with pytest.raises(ClientError, match="another run is writing"):
            ResultsFile(path, 2)
        first.close()
    ResultsFile(path, 2).close()


@pytest.mark.parametrize("name", [".", "nowhere/r.csv"])
def test_a_file_that_cannot_be_made_is_said(tmp_path: Path, name: str) -> None:
    """With the reason."""
    with pytest.raises(ClientError, match=r"cannot write .*: (Is a directory|No such file or directory)"):
        ResultsFile(tmp_path / name, 2)


def test_a_full_disk_leaves_whole_rows(tmp_path: Path, monkeypatch) -> None:
    """The disk takes half of a write and then nothing: the half is taken back, and a later run goes on."""
    path = tmp_path / "r.csv"
    results = ResultsFile(path, 2)
    results.add(_PREDICTIONS[:2])
    before = path.read_bytes()
    write = os.write
    room = 20

    def full(file: int, chunk: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken, room = write(file, chunk[:room]), 0
        return taken

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ClientError, match=r"cannot write .*: No space left on device"):
        results.add(_PREDICTIONS[2:])
    assert (path.read_bytes(), results.rows) == (before, 2)
    results.close()
    monkeypatch.undo()
    assert _write(path, _PREDICTIONS).rows == 5
    assert len(_rows(path)) == 5
