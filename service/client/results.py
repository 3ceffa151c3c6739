"""The results file of a bulk run: CSV, a row per image, that can be gone on with after a kill at any moment.

Rows are only ever added at the end, some at a time by one write. A run that was killed leaves whole rows and perhaps
the beginning of one; the next run cuts that off, and asks for what has no row. A lock keeps two runs apart.
"""

import csv
import fcntl
import hashlib
import io
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from service.client.base import ClientError, Prediction

_END: Final = "\r\n"  # as RFC 4180 has it; with it, the csv module quotes both characters wherever a path has them


_LONGEST_ROW_BYTES: Final = 1 << 16


def columns(top_k: int) -> list[str]:
    """The names of the columns when `top_k` labels are asked for."""
    more = [name for rank in range(2, top_k + 1) for name in (f"label_{rank}", f"score_{rank}")]
    return ["path", "label", "score", *more, "unknown", "model", "version", "error"]


def row(prediction: Prediction, top_k: int) -> list[str]:
    """One row; the columns of an answer are empty when the image failed."""
    if prediction.error:
        return [prediction.filename, *[""] * (2 * top_k + 3), prediction.error]
    top = [part for label, score in prediction.top[:top_k] for part in (label, f"{score:.7g}")]
    top += [""] * (2 * top_k - len(top))
    unknown = "true" if prediction.unknown else "false"
    return [prediction.filename, *top, unknown, prediction.model, str(prediction.version), ""]


class ResultsFile:
    """An open results file.

    Args:
        path: made where there is none, gone on with where there is one.
        top_k: labels per image; the same for all runs into one file.
        retry_failed: drop the rows of images that failed, so that they are asked about again.

    Attributes:
        rows: rows in the file.
        failed: how many of them are of images that failed.

    Raises:
        ClientError: it cannot be written, is no results file of this kind, or another run writes it.
    """

    def __init__(self, path: Path, top_k: int, *, retry_failed: bool = False) -> None:
        self.rows = 0
        self.failed = 0
        self._path = path
        self._top_k = top_k
        self._header = _encode([columns(top_k)])
        self._done = array("Q")
        self._file = _open(path)
        try:
            kept = self._read()
            if retry_failed and self.failed:
                self._drop_failed()
            else:
                os.ftruncate(self._file, kept)
            self._end = os.lseek(self._file, 0, os.SEEK_END)
            if not self._end:
                self._write(self._header)
        except OSError as error:
            os.close(self._file)
            raise ClientError(f"cannot write {path}: {error.strerror}") from error
        except BaseException:
            os.close(self._file)
            raise

    def __contains__(self, path: str) -> bool:
        """Whether an earlier run wrote a row of this image. What `add` has added since is not looked at."""
        digest = _digest(path)
        index = bisect_left(self._done, digest)
        return index < len(self._done) and self._done[index] == digest

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Appends a row for each.

        Raises:
            ClientError: they cannot be written, of a full disk for example. The file then ends with its last whole row.
        """
        try:
            self._write(_encode([row(one, self._top_k) for one in predictions]))
        except OSError as error:
            raise ClientError(f"cannot write {self._path}: {error.strerror}") from error
        self.rows += len(predictions)
        self.failed += sum(bool(one.error) for one in predictions)

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._file)

    def _write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(chunk)

    def _read(self) -> int:
        """Counts and remembers the whole rows; returns where they end.

        Raises:
            ClientError: what is in the file is not what an earlier run with these columns has left.
        """
        size = os.fstat(self._file).st_size
        if size < len(self._header):
            if os.pread(self._file, size, 0) != self._header[:size]:
                raise ClientError(f"{self._path} exists and is no results file")
            return 0
        if os.pread(self._file, len(self._header), 0) != self._header:
            raise ClientError(
                f"{self._path} exists and is no results file with {self._top_k} labels per image (--top-k): "
                f"expected the columns {','.join(columns(self._top_k))}"
            )
        end = 0
        width = len(columns(self._top_k))
        for fields, position in _rows(self._file):
            if len(fields) != width:
                raise ClientError(
                    f"{self._path} is damaged: expected {width} columns at byte {end}, found {len(fields)}"
                )
            if end:
                self.rows += 1
                self.failed += bool(fields[-1])
                self._done.append(_digest(fields[0]))
            end = position
        if size - end > _LONGEST_ROW_BYTES:
            raise ClientError(f"{self._path} is damaged: expected a row at byte {end}")
        self._done = array("Q", sorted(self._done))
        return end

    def _drop_failed(self) -> None:
        """Replaces the file by one without the rows of failed images, in one step."""
        unfinished = self._path.with_name(self._path.name + ".unfinished")
        copy = _open(unfinished)
        try:
            os.ftruncate(copy, 0)
            done = array("Q")
            with io.BufferedWriter(io.FileIO(copy, "wb", closefd=False), 1 << 20) as writer:
                writer.write(self._header)
                for fields, _ in islice(_rows(self._file), 1, None):
                    if not fields[-1]:
                        writer.write(_encode([fields]))
                        done.append(_digest(fields[0]))
            os.fsync(copy)
            unfinished.rename(self._path)
        except BaseException:
            os.close(copy)
            raise
        os.close(self._file)
        self._file = copy
        self.rows -= self.failed
        self.failed = 0
        self._done = array("Q", sorted(done))


def _open(path: Path) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise ClientError(f"another run is writing {path}") from error
    return file


def _rows(file: int) -> Iterator[tuple[list[str], int]]:
    """Every whole row with the position behind it; a beginning of a row at the end is left out."""
    position = 0
    last = b""

    def lines() -> Iterator[str]:
        nonlocal position, last
        with io.BufferedReader(io.FileIO(file, "rb", closefd=False), 1 << 20) as reader:
            reader.seek(0)
            for line in reader:
                position += len(line)
                last = line
                yield line.decode("utf-8", "surrogateescape")

    size = os.fstat(file).st_size
    rows = csv.reader(lines(), strict=True)
    while True:
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error:  # a quote that is not closed, when at the end
            fields, last = [], b""
        if not last.endswith(_END.encode("ascii")):
            if position < size:
                raise ClientError(f"the results file is damaged before byte {position}: expected a row")
            return
        yield fields, position


def _encode(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=_END).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _digest(path: str) -> int:
    """8 bytes in place of a path. That two of ten million paths share theirs has a probability of 3 in a million."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest())
