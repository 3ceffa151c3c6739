"""`kill -9` at random moments of `train`, and whether it changes anything: `python -m benchmarks.kill DATA [FLAG...]`.

Trains once without interruption. Then gives the same command again and again, and kills it and all that it started at
seeded random moments of an unbroken run's duration, until it was killed often enough; a run that gets to its end in
between is compared with the unbroken one, and the next starts from nothing. The last run is let through and compared.
After each kill, every version that a server would see is verified. Exit status 1: something differed.

    python -m benchmarks.kill DATA --strategy partial --epochs 4
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from service.published import list_versions
from service.version import GOLDENS, read_version, verify_files

_NAME: Final = "killed"


def main() -> int:
    """Trains, kills, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--moments-seed", type=int, default=0, metavar="N", help="of the moments (default: 0)")
    options, flags = parser.parse_known_args()
    chance = random.Random(options.moments_seed)
    with tempfile.TemporaryDirectory(prefix="graft-kill-") as folder:
        unbroken, broken = Path(folder) / "unbroken", Path(folder) / "broken"
        start = time.monotonic()
        _start(options.data, unbroken, flags).wait()
        seconds = time.monotonic() - start
        expected = _outcome(unbroken)
        _say(f"unbroken: {seconds:.1f} s, test accuracy {expected[0]}")
        kills, same = 0, True
        while kills <= options.kills:
            moment = chance.uniform(0.0, seconds) if kills < options.kills else None
            process = _start(options.data, broken, flags)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                seen = _visible(broken)
                _say(f"kill {kills:2} after {moment:5.1f} s: {seen or 'no'} version visible")
                if not seen:
                    continue
            same = _outcome(broken) == expected and same
            _say(f"came to its end: {'the same' if _outcome(broken) == expected else 'DIFFERENT: ' + str(broken)}")
            if moment is None:
                break
            shutil.rmtree(broken)
    return int(not same)


def _start(data: Path, where: Path, flags: list[str]) -> subprocess.Popen[bytes]:
    command = ["train", str(data), "--models", str(where / "models"), "--cache", str(where / "cache"), "--name", _NAME]
    with (where.parent / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "training", *command, *flags], stdout=log, stderr=log, start_new_session=True
        )


def _visible(where: Path) -> int:
    """How many versions a server would see; raises when one of them is not whole."""
    numbers = list_versions(where / "models").get(_NAME, [])
    for number in numbers:
        verify_files(read_version(where / "models" / _NAME / str(number)))
    return len(numbers)


def _outcome(where: Path) -> tuple[float, str, str, bytes]:
    """Test accuracy, all metrics, the calibration and the goldens with their scores."""
    if not _visible(where):
        raise SystemExit(f"the run published nothing:\n{(where.parent / 'log').read_text(encoding='utf-8')[-2000:]}")
    version = where / "models" / _NAME / "1"
    manifest = read_version(version).manifest
    goldens = (version / GOLDENS / "goldens.json").read_bytes()
    return manifest.metrics.test.accuracy, str(manifest.metrics), str(manifest.calibration), goldens


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
