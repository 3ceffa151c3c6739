"""Large matrices lie in a file that nobody sees, and give their memory back."""

import errno
import mmap
import os
import re
from pathlib import Path

import numpy as np
import pytest

from training import matrix


def _mapped_bytes() -> int:
    """How much of files is mapped into this process and in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return sum(1024 * int(size) for size in re.findall(r"^Rss(?:File|Shmem):\s+(\d+) kB", status, re.MULTILINE))


def _owner(array: np.ndarray) -> object:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner


def test_small_ones_are_plain_arrays(tmp_path: Path):
    """Nothing is written for what fits."""
    assert _owner(matrix.empty(10, 3, tmp_path)) is None


def test_large_ones_lie_in_a_file_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No file is to be seen, numbers stay what they are, and `release` takes the pages out of the process."""
    monkeypatch.setattr(matrix, "IN_MEMORY_BYTES", 1000)
    rows, width = 4000, 1000
    large = matrix.empty(rows, width, tmp_path)
    assert isinstance(_owner(large), mmap.mmap)
    assert list(tmp_path.iterdir()) == []
    before = _mapped_bytes()
    large[:] = np.arange(rows, dtype=np.float32)[:, None]
    filled = _mapped_bytes()
    assert filled - before > 0.9 * large.nbytes
    matrix.release(large[5:])
    assert filled - _mapped_bytes() > 0.9 * large.nbytes
    np.testing.assert_array_equal(large[:, 7], np.arange(rows))


def test_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first command on a machine has no cache yet."""
    monkeypatch.setattr(matrix, "IN_MEMORY_BYTES", 1000)
    assert matrix.empty(100, 100, tmp_path / "not" / "there").shape == (100, 100)


def test_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The space is reserved at once: a disk that fills up later would kill the process by SIGBUS."""
    monkeypatch.setattr(matrix, "IN_MEMORY_BYTES", 1000)

    def full(_descriptor: int, _start: int, size: int) -> None:
        assert size == 4 * 400 * 100
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        matrix.empty(400, 100, tmp_path)


def test_chunks_cover_everything():
    """Each row is in one chunk, whatever the width."""
    for count, width in ((0, 5), (7, 10**8), (100_000, 1280)):
        covered = [at for some in matrix.chunks(count, width) for at in range(some.start, some.stop)]
        assert covered == list(range(count))
