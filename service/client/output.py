"""Predictions on standard output: a table for people, CSV, or JSON lines."""

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from service.client.base import Prediction
from service.client.results import columns, row

_LABEL_WIDTH: Final = 20


def writer(form: str, top_k: int, name_width: int) -> Callable[[Prediction], None]:
    """Makes what prints one prediction, and prints the heading if the form has one.

    Args:
        form: "table", "csv" or "json".
        top_k: labels per image.
        name_width: characters of the table's first column.
    """
    if form == "json":
        return lambda one: _print(json.dumps({k: v for k, v in asdict(one).items() if v is not None}))
    if form == "csv":
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names that are no text, as they are
        rows: Any = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(columns(top_k))
        return lambda one: rows.writerow(row(one, top_k))
    _print(f"{'FILE':{name_width}}  {'LABEL':{_LABEL_WIDTH}}  SCORE  NEXT, BY MODEL/VERSION")
    return lambda one: _print(_line(one, name_width))


def _line(one: Prediction, name_width: int) -> str:
    # a name that is no text, or would break the line, is shown with escapes
    name = one.filename if one.filename.isprintable() else one.filename.encode("unicode_escape").decode("ascii")
    name = f"{name:{name_width}}"
    if one.error:
        return f"{name}  {one.error}"
    label = f"unknown ({one.label}?)" if one.unknown else one.label
    following = ", ".join(f"{other} {score:.3f}" for other, score in one.top[1:])
    by = f"({one.model}/{one.version})"
    return f"{name}  {label:{_LABEL_WIDTH}}  {one.score:.3f}  {following + '  ' if following else ''}{by}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
