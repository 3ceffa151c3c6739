"""`python -m service.engine`: the process. Pins itself, loads and proves one version, listens, serves.

Started by `service/pool.py` only, which reads one JSON line from --status-fd: {"engine": ..., "side_px": ...,
"class_names": ...} when the socket accepts, or {"error": ..., "lasting": true} when the version must not serve, or
{"error": ...} when this host could not load it now.
"""

import argparse
import ctypes
import json
import math
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path

import setproctitle

from service import host
from service.engine.loop import EngineLoop
from service.engine.runtime import candidates, load
from service.errors import CapacityError, GraftError
from service.garbage import settle
from service.log import configure_log
from service.version import check_place, read_version, verify_files

_PR_SET_PDEATHSIG = 1
_SPARE_BYTES = 2 << 30
"""Room above the loaded model for pictures: a 100 MP RGB picture needs 0.3 GB, its float or RGBA form 4 times that."""


def main() -> int:
    """Returns the exit code: 0 drained, 1 the version cannot be served."""
    options = _read_options()
    configure_log(options.log_level, options.log_format)
    if options.parent is not None and not _end_with(options.parent):
        return 1
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # a terminal's are for the supervisor, who drains us
        signal.signal(number, signal.SIG_IGN)

    # OpenVINO's package imports its converter, which we must not use (it sends telemetry) and which takes half of the
    # import's time; without it the import goes on, as it does where the converter is not installed.
    sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]  # None: it is not to be imported

    # Before any runtime loads: OpenVINO with one thread pins itself to the first core that it may use.
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    with os.fdopen(options.status_fd, "w") as status:
        try:
            version = read_version(options.version_dir)
            setproctitle.setproctitle(f"graft engine {version.name}/{version.number}")
            check_place(version)
            verify_files(version)
            remote = {"url": options.url, "ca_file": options.ca_file, "timeout_s": options.timeout_s}
            choices = candidates(options.engine, host.cpu_flags(), host.has_gpu(), remote)
            runtime = load(
                version,
                choices,
                threads=len(os.sched_getaffinity(0)),
                host_cores=frozenset(options.host_cores),
            )
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(options.socket))
            listener.listen(128)
        except CapacityError as error:
            json.dump({"error": _sendable(str(error))}, status)
            return 1
        except GraftError as error:
            json.dump({"error": _sendable(str(error)), "lasting": True}, status)
            return 1
        except Exception as error:  # noqa: BLE001 - reported to the supervisor, which shows it
            traceback.print_exc()
            json.dump({"error": _sendable(f"{type(error).__name__}: {error}")}, status)
            return 1
        loop = EngineLoop(listener, version, runtime, options.max_pixels, target_s=options.target_p99_ms / 1e3)
        signal.signal(signal.SIGTERM, lambda *_: loop.drain())
        _limit_memory()
        settle()
        shape = {"side_px": version.spec.side_px, "class_names": list(version.manifest.class_names)}
        json.dump({"engine": runtime.name} | shape, status)
    loop.run()
    return 0


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One Graft engine process; started by the service, not by people.")
    parser.add_argument("--version-dir", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--status-fd", type=int, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--core", type=int, help="CPU core to run on; all where left out")
    parser.add_argument(
        "--host-cores", type=int, nargs="+", default=(), help="for an image that has the host to itself"
    )
    parser.add_argument("--max-pixels", type=int, required=True)
    parser.add_argument("--url", help="for the engine tensorflow-serving, as are the next two")
    parser.add_argument("--ca-file", type=Path, default=Path())
    parser.add_argument("--timeout-s", type=float)
    parser.add_argument("--target-p99-ms", type=float, default=math.inf)
    parser.add_argument("--parent", type=int, help="process id; end with it. Left out, the next supervisor decides")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", default="text")
    return parser.parse_args()


def _end_with(parent: int) -> bool:
    """Has SIGTERM sent to this process when its parent (the thread that started it) ends; whether it still runs."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


def _sendable(text: str) -> str:
    """Names of files may hold bytes that are no UTF-8; a message with them in it could not be sent to any client."""
    return text.encode(errors="backslashreplace").decode()


def _limit_memory() -> None:
    """A picture that needs more than the spare memory fails alone, with MemoryError, instead of the whole host."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    limit = pages * resource.getpagesize() + _SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    sys.exit(main())
