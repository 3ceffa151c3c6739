"""`python -m service.models`: which versions a models directory serves. Works on the directory, running service or not.

python -m service.models list
python -m service.models rollback pets            # the version below answers, in well under a second while it is loaded
python -m service.models pin pets 6               # version 6 answers, whatever is published later
python -m service.models unpin pets               # the highest version answers again
python -m service.models label pets canary 7      # version 7 is loaded and answers who asks for `canary`
python -m service.models share pets 0.1           # ... and a tenth of those who ask for nothing
python -m service.models unlabel pets canary
python -m service.models latest pets 2            # the two highest versions are loaded
python -m service.models specific pets 3 5        # these versions are loaded
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from service.errors import GraftError, ModelNotFound
from service.policy import BrokenPolicy, Change, Policy, change_policy, read_policy
from service.published import list_versions, valid_number
from service.routes import STABLE


def main() -> int:
    """The command line; returns the exit code: 0 done, 1 nothing was changed, 2 wrong usage."""
    options = _parser().parse_args()
    try:
        if options.change is None:
            return _list(options.models)
        before, after = change_policy(options.models, options.name, options.change(options))
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who typed it
        return 1
    published = list_versions(options.models).get(options.name, [])
    print(f"{options.name}: {_words(after, published)}")  # noqa: T201
    print(f"{' ' * len(options.name)}  was: {_words(before, published)}")  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.models",
        description="Says and changes which versions of the models in a directory are served. "
        "A running service follows at once; none need be running.",
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=Path(os.environ.get("GRAFT_MODELS", "models")),
        metavar="DIR",
        help="models directory (default: %(default)s)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: str, text: str, change: Callable[[argparse.Namespace], Change] | None) -> argparse.ArgumentParser:
        added = commands.add_parser(command, help=text, description=text)
        added.set_defaults(change=change)
        if change:
            added.add_argument("name", metavar="NAME", help="the model")
        return added

    add("list", "every model: its versions and what is wanted of them", None)
    rollback = add(
        "rollback",
        "the version below the live one answers, whatever is published later",
        lambda given: lambda policy, servable: policy.rolled_back(servable, given.to),
    )
    rollback.add_argument("--to", type=int, default=0, metavar="N", help="this version instead")
    pin = add("pin", "this version answers, whatever is published later", _labelled)
    pin.set_defaults(label=STABLE)
    unpin = add("unpin", "the highest version answers again", _labelled)
    unpin.set_defaults(label=STABLE, version=0)
    label = add("label", "a version is loaded and answers to a label", _labelled)
    unlabel = add("unlabel", "a label is taken away", _labelled)
    unlabel.set_defaults(version=0)
    for one in (label, unlabel):
        one.add_argument("label", metavar="LABEL", help="stable, canary or any other")
    for one in (pin, label):
        one.add_argument("version", type=_number, metavar="N", help="the version")
    share = add(
        "share",
        "part of the requests without version and label that the canary answers",
        lambda given: lambda policy, _: replace(policy, canary_share=given.share),
    )
    share.add_argument("share", type=float, metavar="SHARE", help="0 to 1")
    latest = add(
        "latest",
        "the highest versions are loaded",
        lambda given: lambda policy, _: replace(policy, latest=given.count, specific=()),
    )
    latest.add_argument("count", type=int, metavar="N", help="how many; 1 is the default of a model")
    specific = add(
        "specific",
        "these versions are loaded and no others",
        lambda given: lambda policy, _: replace(policy, specific=tuple(sorted(set(given.versions)))),
    )
    specific.add_argument("versions", type=int, nargs="+", metavar="N", help="the versions")
    return parser


def _number(text: str) -> int:
    if not valid_number(text):
        raise argparse.ArgumentTypeError(f"expected a version number, 1 or more, got {text!r}")
    return int(text)


def _labelled(given: argparse.Namespace) -> Change:
    return lambda policy, _: policy.labelled(given.label, given.version)


def _list(models: Path) -> int:
    if not models.is_dir():
        raise ModelNotFound(f"expected a models directory at {models}; there is none")
    found = list_versions(models)
    if not found:
        print(f"no model in {models}")  # noqa: T201 - as below
    for name, published in found.items():
        try:
            words = _words(read_policy(models / name), published)
        except BrokenPolicy as error:
            words = f"{error}; published: {_numbers(published)}"
        print(f"{name}: {words}")  # noqa: T201 - what was asked for
    return 0


def _words(policy: Policy, published: Sequence[int]) -> str:
    live, wanted = policy.live(published), sorted(policy.wanted(published))
    parts = [f"live {live or 'none'}", f"loaded {_numbers(wanted)} of {_numbers(published)}"]
    parts += [f"{label} {number}" for label, number in sorted(policy.labels.items())]
    parts += [f"the canary answers {policy.canary_share:.1%}"] if policy.canary_share else []
    return "; ".join([*parts, *policy.missing(published)])


def _numbers(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "none"


if __name__ == "__main__":
    sys.exit(main())
