"""What `auto` loses against trying everything: `python -m benchmarks.regret DATA [DATA ...]`.

Of each data set 30 % of the pictures are for testing; of the others 10, 25, 100 or all of each class are for training
and validation. Every strategy is trained on each of these in a process and a cache of its own. Regret is the test
accuracy of the best of them less that of `auto`, in points; the share is the CPU time of `auto` over that of all the
others together, from loading the backbone to the trained model. Results are kept in OUT/results.jsonl: an interrupted
run goes on, and `--again auto` measures one strategy anew against what is kept of the others.
"""

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from service.files import replace_text
from training.settings import STRATEGIES, Settings

_SIZES: Final = (10, 25, 100, 0)
_TEST: Final = 0.3
_OTHERS: Final = tuple(name for name in STRATEGIES if name != "auto")


def main() -> None:
    """Measures what is missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders of class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES, help="per class, 0 for all (10 25 100 0)")
    parser.add_argument("--again", nargs="*", default=[], choices=STRATEGIES, help="measure these anew")
    parser.add_argument("--time-budget", type=float, default=Settings.time_budget, help="of auto, seconds")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    kept = asked.out / "results.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    cells = {
        f"{data.name}-{size or 'all'}-{seed}": (data, size, seed)
        for seed in asked.seeds
        for size in asked.sizes
        for data in asked.data
    }
    rows = [row for row in rows if row["strategy"] not in asked.again or row["cell"] not in cells]
    for cell, (data, size, seed) in cells.items():
        listing = asked.out / f"{cell}.csv"
        if not listing.exists():
            _write_listing(data, size, seed, listing)
        for strategy in ("auto", *_OTHERS):
            if any(row["cell"] == cell and row["strategy"] == strategy for row in rows):
                continue
            sys.stderr.write(f"{cell}: {strategy}\n")
            rows.append({"cell": cell} | _measure(listing, strategy, seed, asked.time_budget))
            replace_text(kept, "".join(f"{json.dumps(row)}\n" for row in rows))
    _tell(rows, list(cells))


def _write_listing(data: Path, size: int, seed: int, listing: Path) -> None:
    from training import dataset, duplicates  # noqa: PLC0415 - the processes that train do not need these here

    with tempfile.TemporaryDirectory() as cache:
        images = dataset.index(data, Path(cache)).images
    first: dict[int, Any] = {}
    for image, group in zip(images, duplicates.group(images), strict=True):
        first.setdefault(group, image)
    by_class = defaultdict(list)
    for image in sorted(first.values(), key=lambda one: hashlib.sha256(f"{seed}{one.sha256}".encode()).digest()):
        by_class[image.label].append(image)
    with listing.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "split"))
        for label, members in by_class.items():
            tested = round(_TEST * len(members))
            for at, image in enumerate(members[: tested + size if size else None]):
                writer.writerow((image.path.absolute(), label, "test" if at < tested else ""))


def _measure(listing: Path, strategy: str, seed: int, budget: float) -> dict[str, Any]:
    """In a process of its own."""
    arguments = [str(listing), strategy, str(seed), str(budget)]
    done = subprocess.run(
        [sys.executable, "-c", f"from benchmarks import regret; regret.one(*{arguments!r})"],
        stdout=subprocess.PIPE,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one(listing: str, strategy: str, seed: str, budget: str) -> None:
    """Trains and tests once, and prints JSON: what _measure starts."""
    from training import compare, dataset, quiet  # noqa: PLC0415 - import Keras

    quiet.import_keras()
    with tempfile.TemporaryDirectory() as cache:
        settings = Settings(
            Path(listing),
            Path(cache),
            "regret",
            strategy=strategy,
            seed=int(seed),
            cache=Path(cache),
            time_budget=float(budget),
        )
        found = dataset.index(settings.data, settings.cache)
        console = Console(stderr=True)
        start, cpu = time.monotonic(), time.process_time()
        measured = compare.measure(settings, found, console)
    row = asdict(measured) | {"seconds": time.monotonic() - start, "cpu_s": time.process_time() - cpu}
    sys.stdout.write(json.dumps(row) + "\n")


def _tell(rows: list[dict[str, Any]], cells: list[str]) -> None:
    table = Table(
        "data", "tested", *_OTHERS, "auto", "chose", "regret", "share of the CPU time", box=None, pad_edge=False
    )
    regrets, shares = [], []
    for cell in cells:
        found = {row["strategy"]: row for row in rows if row["cell"] == cell}
        accuracy = {name: 100 * found[name]["test_accuracy"] for name in found}
        regrets.append(max(accuracy[name] for name in _OTHERS) - accuracy["auto"])
        shares.append(found["auto"]["cpu_s"] / sum(found[name]["cpu_s"] for name in _OTHERS))
        table.add_row(
            cell,
            str(found["auto"]["test_images"]),
            *(f"{accuracy[name]:.1f}" for name in (*_OTHERS, "auto")),
            found["auto"]["chosen"],
            f"{regrets[-1]:.2f}",
            f"{shares[-1]:.0%}",
        )
    console = Console(width=160)
    console.print(table)
    console.print(f"mean regret {np.mean(regrets):.2f} points, mean share of the CPU time {np.mean(shares):.0%}")


if __name__ == "__main__":
    main()
