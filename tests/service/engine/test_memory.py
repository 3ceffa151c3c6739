"""The engine's limit of memory (service/engine/__main__.py), in a process of its own, and what it does to a picture."""

import subprocess
import sys

from tests.pictures import plain

_LIMITED = """
import resource, sys
from pathlib import Path
import service.engine.__main__ as engine
from service.errors import ImageTooLarge
from service.image import ImageSpec, decode

def spare():
    before = int(Path("/proc/self/statm").read_text().split()[5])
    engine._limit_memory()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    assert soft == hard
    return soft - before * resource.getpagesize()

small, large = (Path(path).read_bytes() for path in sys.argv[1:])
assert 2 << 30 <= spare() < 3 << 30
engine._SPARE_BYTES = 16 << 20
assert spare() < 32 << 20
try:
    decode(large, ImageSpec(8))
except ImageTooLarge as error:
    print(error)
assert decode(small, ImageSpec(8)).shape == (8, 8, 3)
"""


def test_a_picture_above_the_limit_fails_alone(tmp_path) -> None:
    """What is loaded and 2 GiB, for good; with 16 MB to spare a large picture fails, a small one after it does not."""
    files = []
    for side_px in (100, 6000):
        files.append(tmp_path / str(side_px))
        files[-1].write_bytes(plain("red", size=(side_px, side_px)))
    done = subprocess.run([sys.executable, "-c", _LIMITED, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "not enough memory to decode a picture of 6000 x 6000 pixels\n"), done
