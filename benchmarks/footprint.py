"""`python -m benchmarks.footprint MODELS [--runs N]`: seconds from start to ready, the first request, memory.

Starts `python -m service` on free ports, waits until /readyz says 200, asks 50 times, reads the proportional set size
(PSS: shared pages counted once) of every process from /proc, and stops it again. Prints medians, those of the processes
as a Markdown table.
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.readiness import PROBE_IMAGE

_READY_WITHIN_S = 120.0
_REQUESTS = 50
LOCAL: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""For services of our own, which no proxy of the environment is asked for."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS", help="models directory to serve")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="starts to take the median of (default: 5)")
    options = parser.parse_args()
    seconds: list[float] = []
    firsts: list[float] = []
    others: list[float] = []
    memory: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.runs):
        took, requests, sizes = _run(options.models)
        seconds.append(took)
        firsts.append(1e3 * requests[0])
        others.append(1e3 * statistics.median(requests))
        for name, size in sizes.items():
            memory[name].append(size)
        memory["all"].append(sum(sizes.values()))
    print(f"start to ready: median {statistics.median(seconds):.2f} s of {options.runs} (", end="")  # noqa: T201
    print(", ".join(f"{one:.2f}" for one in sorted(seconds)) + ")")  # noqa: T201
    first, other = statistics.median(firsts), statistics.median(others)
    print(f"first request after ready: {first:.1f} ms ({max(firsts):.1f} at most), median of all {other:.1f} ms\n")  # noqa: T201
    print("| process | PSS, MB |\n|---|---|")  # noqa: T201
    for name, sizes_of_runs in memory.items():
        print(f"| `{name}` | {statistics.median(sizes_of_runs):.0f} |")  # noqa: T201


def _run(models: Path) -> tuple[float, list[float], dict[str, float]]:
    """Seconds to ready, seconds of each request, MB of each process."""
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as run_dir:
        command = [sys.executable, "-m", "service", "--models", str(models), "--run-dir", run_dir]
        started = time.monotonic()
        process = subprocess.Popen([*command, "--http-port", "0", "--grpc-port", "0"], stderr=subprocess.DEVNULL)
        try:
            url = wait_until_ready(Path(run_dir), process)
            took = time.monotonic() - started
            names = json.loads(LOCAL.open(f"{url}/readyz").read())["models"]
            requests = []
            for number in range(_REQUESTS):
                name = sorted(names)[number % len(names)]
                request = urllib.request.Request(f"{url}/classify?model={name}", PROBE_IMAGE)  # noqa: S310
                request.add_header("Content-Type", "image/png")
                asked = time.monotonic()
                LOCAL.open(request).read()
                requests.append(time.monotonic() - asked)
            return took, requests, memory_mb(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def wait_until_ready(run_dir: Path, process: "subprocess.Popen[bytes]") -> str:
    """Returns the URL of a service's HTTP front once /readyz says 200.

    Raises:
        RuntimeError: the service ended or took too long.
    """
    end = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < end and process.poll() is None:
        try:
            url: str = json.loads((run_dir / "address.json").read_text(encoding="ascii"))["http"]
            with LOCAL.open(f"{url}/readyz", timeout=5):
                return url
        except (OSError, ValueError):
            time.sleep(0.01)
    raise RuntimeError("the service did not become ready")


def processes_below(supervisor: int) -> list[int]:
    """A process and everything below it."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(status[1])
    found = [supervisor]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def memory_mb(supervisor: int) -> dict[str, float]:
    """PSS in MB by process name, of a process and everything below it."""
    sizes = {}
    numbers: dict[str, int] = defaultdict(int)
    for pid in processes_below(supervisor):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip() or str(pid)
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # it has just ended
            continue
        numbers[name] += 1
        pss = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        label = f"{name} ({numbers[name]})" if name.startswith("graft engine") else name
        sizes[label] = int(pss.group(1)) / 1024 if pss else 0.0
    return sizes


def anonymous_mb(supervisor: int) -> float:
    """Anonymous memory in MB that a process and everything below it have: what can leak.

    The kernel counts it as it goes, whereas a proportional set size costs it 2 ms of a core for each process.
    """
    total = 0
    for pid in processes_below(supervisor):
        with suppress(OSError):  # it has just ended
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
            total += int(found.group(1)) if found else 0
    return total / 1024


if __name__ == "__main__":
    main()
