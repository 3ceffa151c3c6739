"""The audit on the terminal: a table, or a few lines in the course of `train`."""

from collections import Counter
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.audit.findings import Audit, Example

_COLOURS: Final = {"error": "bold red", "warning": "yellow", "note": "dim"}
_MOST_CLASSES: Final = 12
_MOST_LINES: Final = 6


def show(audit: Audit, console: Console) -> None:
    """Prints what the data is, a table of the findings with an example each, and what to do about them."""
    _describe(audit, console)
    for reason in audit.left_out:
        console.print(reason, markup=False)
    if not audit.findings:
        console.print("nothing suspicious was found")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("found", ratio=2)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("such as", ratio=3, overflow="fold")
    for finding in audit.findings:
        table.add_row(
            Text(finding.severity, _COLOURS[finding.severity]),
            Text(finding.title),
            finding.amount,
            Text(_such_as(finding.examples[0])),
        )
    console.print(table, soft_wrap=False)
    for finding in audit.findings:
        if finding.severity != "note":
            console.print(Text.assemble("- ", (finding.title, "bold"), f": {finding.advice}"), soft_wrap=False)


def brief(audit: Audit, console: Console) -> None:
    """Prints a line for each error and warning; unreadable files are left to who lists them one by one."""
    serious = [one for one in audit.findings if one.severity != "note" and one.kind != "unreadable"]
    for finding in serious[:_MOST_LINES]:
        line = f"audit, {finding.severity}: {finding.title}: {finding.amount}, such as {_such_as(finding.examples[0])}"
        console.print(line, markup=False)
    if len(serious) > _MOST_LINES:
        console.print(f"... and {len(serious) - _MOST_LINES} more findings; the report has them all")


def _describe(audit: Audit, console: Console) -> None:
    dataset = audit.dataset
    sizes = Counter(image.label for image in dataset.images)
    names = [f"{name} {sizes[name]}" for name in dataset.class_names[:_MOST_CLASSES]]
    rest = ["..."] if len(dataset.class_names) > _MOST_CLASSES else []
    sides = Counter(image.split for image in dataset.images if image.split)
    given = f"; given: {', '.join(f'{side} {sides[side]}' for side in sorted(sides))}" if sides else ""
    console.print(
        f"{len(dataset.images)} images in {len(dataset.class_names)} classes: {', '.join(names + rest)}{given}",
        markup=False,
    )


def _such_as(example: Example) -> str:
    paths = " = ".join(shown.path for shown in example.files[:2]) + (" = ..." if len(example.files) > 2 else "")
    return ": ".join(part for part in (paths, example.note) if part)
