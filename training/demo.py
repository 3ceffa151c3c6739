"""`python -m training demo`: the whole way once, with the commands that a user would type.

Draws sample documents, trains on them, serves the result, classifies one page over HTTP and one over gRPC, and stays up
until Ctrl-C. Everything lands in one folder and can be deleted.
"""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from training.errors import SettingError

WEIGHTS_UNAVAILABLE: Final = 3
"""Exit code of `train` when pre-trained weights cannot be had."""

_MARK: Final = ".graft-demo"
_MODEL: Final = "documents"
_PAGES_PER_CLASS: Final = 40
_READY_WITHIN_S: Final = 60.0


def run(folder: Path, http_port: int, grpc_port: int, console: Console) -> int:
    """Shows the whole way; returns when interrupted.

    Args:
        folder: where data, models and the cache go; what an earlier demo left there is made anew.
        http_port: of the service; 0 takes a free one.
        grpc_port: the same for gRPC.
        console: where to write.

    Raises:
        SettingError: something in the folder is not a demo's, or one of the commands failed; it has said why.
    """
    data, unseen, models = (folder / name for name in ("documents", "unseen", "models"))
    _make_room([data, unseen, models / _MODEL])
    _step(console, "Sample data: pages of several kinds of documents, drawn here")
    _command(console, ["training", "documents", str(data), "--per-class", str(_PAGES_PER_CLASS)])

    _step(console, "Training: features of a pre-trained network, and a linear head on them")
    train = [
        "training",
        "train",
        str(data),
        "--models",
        str(models),
        "--name",
        _MODEL,
        "--cache",
        str(folder / "cache"),
        "--strategy",
        "linear",
    ]
    status = _command(console, train, allowed=(0, WEIGHTS_UNAVAILABLE))
    if status == WEIGHTS_UNAVAILABLE:
        _step(
            console,
            "No ImageNet weights: Keras found none in its home folder and could not download them. Training a basic "
            "network from scratch instead, which needs none and is less accurate",
        )
        _command(console, [*train, "--strategy", "scratch", "--epochs", "15"])

    _step(console, "Serving")
    with tempfile.TemporaryDirectory(prefix="graft-demo-") as run_dir:
        _serve(models, unseen, Path(run_dir), (http_port, grpc_port), console)
    return 0


def _serve(models: Path, unseen: Path, run_dir: Path, ports: tuple[int, int], console: Console) -> None:
    """Serves the model over HTTP and gRPC, asks it about two new pages, and returns when interrupted.

    The run directory is not in the demo's folder, whose path may be too long for a socket's.
    """
    http_port, grpc_port = ports
    serve = ["service", "--models", str(models), "--run-dir", str(run_dir)]
    serve += ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    console.print(f"$ {shlex.join(['python', '-m', *serve])}", style="bold")
    service = subprocess.Popen([sys.executable, "-m", *serve], start_new_session=True)  # Ctrl-C is ours to pass on
    try:
        address = _wait_until_ready(service, run_dir)
        _step(console, "Two pages that it has not seen, one over HTTP, one over gRPC")
        _command(console, ["training", "documents", str(unseen), "--per-class", "1", "--seed", "1"])
        pages = [next((unseen / name).iterdir()) for name in ("invoice", "letter")]
        _command(console, ["service.client", str(pages[0]), "--url", address["http"]])
        _command(console, ["service.client", str(pages[1]), "--grpc", address["grpc"]])
        _step(console, f"The service stays up at {address['http']} and {address['grpc']} until Ctrl-C. Try")
        console.print(f"  curl --data-binary @{pages[0]} {address['http']}/classify")
        console.print(f"  curl {address['http']}/readyz")
        service.wait()
    except KeyboardInterrupt:
        console.print("\ndraining ...")
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


def _make_room(places: Sequence[Path]) -> None:
    """Empties what an earlier demo made, each place known by a mark in it; never anything else."""
    for place in places:
        if place.exists() and not (place / _MARK).exists():
            raise SettingError(
                f"expected folders of the demo's own, as what is there is made anew; {place} was not made by a demo: "
                "remove it, or choose another --folder"
            )
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / _MARK).touch()


def _step(console: Console, text: str) -> None:
    console.print(f"\n== {text}", style="bold")


def _command(console: Console, arguments: Sequence[str], allowed: Sequence[int] = (0,)) -> int:
    console.print(f"$ {shlex.join(['python', '-m', *arguments])}", style="bold")
    status = subprocess.run([sys.executable, "-m", *arguments], check=False).returncode
    if status not in allowed:
        raise SettingError(f"the demo ended because `python -m {arguments[0]}` failed with exit code {status}")
    return status


def _wait_until_ready(service: "subprocess.Popen[bytes]", run_dir: Path) -> dict[str, str]:
    end = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < end and service.poll() is None:
        try:
            address: dict[str, str] = json.loads((run_dir / "address.json").read_text(encoding="ascii"))
            with urllib.request.urlopen(f"{address['http']}/readyz", timeout=5):  # noqa: S310 - our own http address
                return address
        except (OSError, ValueError, urllib.error.URLError):
            time.sleep(0.05)
    raise SettingError("the demo ended because the service did not become ready; its log above says why")
