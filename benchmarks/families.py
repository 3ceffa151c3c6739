"""Every family of keras.applications the whole way, in its smallest member: `python -m benchmarks.families`.

Per member: `python -m training train` with random weights and one epoch on a dozen small pictures, at the smallest side
that the family takes, once with `partial` (all blocks but the last one frozen; `linear` where there are no boundaries)
and once with `full`; then a service that serves both, and one picture classified by each over HTTP. Prints a table of
what came out; the exit status is 1 when anything failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.footprint import LOCAL

SMALLEST: Final = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet:0.25": 32,
    "MobileNetV2:0.35": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "VGG19": 32,
    "Xception": 71,
}
"""The smallest member of each family, and the smallest side that Keras lets it have."""


@dataclass(frozen=True)
class Command:
    """What a command did: its exit status, seconds, the peak resident memory of it and its children, and its errors."""

    status: int
    seconds: float
    peak_mb: float
    said: str


def main() -> int:
    """Draws, trains, serves, prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("members", nargs="*", metavar="MEMBER", default=list(SMALLEST), help="default: all families")
    members = parser.parse_args().members
    failed = False
    sys.stdout.write(
        "| member | side | partial | full | served by | seconds | peak MB |\n|---|---|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory(prefix="graft-families-") as temporary:
        folder = Path(temporary)
        draw(folder / "photos")
        for member in members:
            row, fine = _whole_way(member, folder)
            failed = failed or not fine
            sys.stdout.write(f"| {' | '.join(row)} |\n")
            sys.stdout.flush()
    return int(failed)


def draw(data: Path) -> None:
    """Twelve pictures of two colours, six to train on, four to validate, two to test."""
    random = np.random.default_rng(0)
    for side, count in (("train", 3), ("val", 2), ("test", 1)):
        for label, channel in (("blue", 2), ("red", 0)):
            (data / side / label).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (90, 80, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(data / side / label / f"{number}.png")


def _whole_way(member: str, folder: Path) -> tuple[list[str], bool]:
    models = folder / member.replace(":", "-")
    cells, seconds, peak = [], 0.0, 0.0
    for strategy in ("partial", "full"):
        command = [
            "training", "train", str(folder / "photos"), "--models", str(models), "--cache", str(folder / "cache"),
            "--backbone", member, "--weights", "none", "--side", str(SMALLEST.get(member, 224)), "--epochs", "1",
            "--strategy", strategy, "--name", strategy, *(["--unfreeze", "1"] if strategy == "partial" else []),
        ]  # fmt: skip
        done = _run(command)
        if "cannot be cut" in done.said:
            command[command.index("--strategy") + 1] = "linear"
            done = _run(command)
            cells.append("no boundaries; linear " + ("passed" if done.status == 0 else f"FAILED: {done.said}"))
        else:
            cells.append("passed" if done.status == 0 else f"FAILED: {done.said}")
        seconds, peak = seconds + done.seconds, max(peak, done.peak_mb)
    served = _serve(models, folder / "photos" / "test" / "red" / "0.png")
    row = [member, str(SMALLEST.get(member, 224)), *cells, served, f"{seconds:.0f}", f"{peak:.0f}"]
    return row, not any("FAILED" in cell for cell in row)


def _run(command: list[str]) -> Command:
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        said = process.stderr.read() if process.stderr else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Command(process.returncode, time.monotonic() - start, used.ru_maxrss / 1024, said.strip()[-300:])


def _serve(models: Path, picture: Path) -> str:
    """Starts a service and classifies a picture by each model; returns yes, or what failed."""
    with tempfile.TemporaryDirectory(prefix="graft-") as run_dir:
        flags = [
            "--models",
            str(models),
            "--run-dir",
            run_dir,
            "--http-port",
            "0",
            "--grpc-port",
            "0",
            "--engines",
            "1",
        ]
        service = subprocess.Popen([sys.executable, "-m", "service", *flags], stderr=subprocess.DEVNULL)
        try:
            url = _wait_ready(Path(run_dir) / "address.json", service)
            labels = set()
            for name in sorted(folder.name for folder in models.iterdir()):
                request = urllib.request.Request(  # noqa: S310 - our own address
                    f"{url}/classify?model={name}", picture.read_bytes(), {"Content-Type": "image/png"}
                )
                with LOCAL.open(request) as response:
                    (answer,) = json.load(response)["results"]
                    labels.add(answer["label"])
            return "yes" if labels <= {"blue", "red"} else f"FAILED: {labels}"
        except (OSError, KeyError, TimeoutError) as error:
            return f"FAILED: {error}"
        finally:
            service.terminate()
            service.wait()


def _wait_ready(address: Path, service: "subprocess.Popen[bytes]") -> str:
    end = time.monotonic() + 300
    while service.poll() is None and time.monotonic() < end:
        try:
            url: str = json.loads(address.read_text(encoding="ascii"))["http"]
            with LOCAL.open(f"{url}/readyz"):
                return url
        except (OSError, ValueError):
            time.sleep(0.1)
    raise TimeoutError("the service did not become ready")


if __name__ == "__main__":
    sys.exit(main())
