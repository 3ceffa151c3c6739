"""Which versions of a model an operator wants to be served, and under which labels: the file `serving.json`.

It lies in the model's folder, beside the versions, so it survives every restart and can be edited by hand. Without it
the highest version is served. `service.models` and the HTTP front's /admin change it; the supervisor follows it.

    {"versions": {"latest": 2}, "labels": {"stable": 6, "canary": 7}, "canary_share": 0.1}
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from service.errors import GraftError, InvalidRequest, ModelNotFound
from service.files import replace_text
from service.published import list_versions
from service.routes import CANARY, STABLE

FILE: Final = "serving.json"

_LABEL: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
_LARGEST: Final = 10**18
_LARGEST_FILE_BYTES: Final = 1 << 16
Change = Callable[["Policy", Sequence[int]], "Policy"]
"""Makes a new policy of the old one and of the versions that can be served, ascending."""

_KEYS: Final = ("versions", "labels", "canary_share")
_LOCK_WAIT_S: Final = 5.0


class BrokenPolicy(GraftError):
    """A serving.json that cannot be understood, or that cannot be read or written. Its text names no path."""


@dataclass(frozen=True)
class Policy:
    """What is wanted of one model.

    Attributes:
        latest: how many of the highest versions to serve, 1 or more; of no meaning where `specific` names some.
        specific: serve these versions, ascending; empty for the latest.
        labels: versions by label. Versions with a label are served as well. `stable` names the one that answers by
            default: versions above it are not served unless they have a label. `canary` answers `canary_share`.
        canary_share: part of the requests that name neither version nor label, 0 to 1.
    """

    latest: int = 1
    specific: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    canary_share: float = 0.0

    def live(self, servable: Sequence[int]) -> int:
        """The version that should answer by default; 0 when there is none.

        Args:
            servable: what is published and not known to be broken, ascending.
        """
        return max(self._eligible(servable), default=0)

    def wanted(self, servable: Sequence[int]) -> Sequence[int]:
        """The versions that should be loaded, the most urgent first: the live one, then the highest."""
        eligible = self._eligible(servable)
        chosen = set(eligible if self.specific else eligible[-self.latest :])
        chosen |= set(servable) & set(self.labels.values())
        live = self.live(servable)
        return sorted(chosen, key=lambda number: (number != live, -number))

    def missing(self, published: Sequence[int]) -> Sequence[str]:
        """What is wanted and not published, in words."""
        named = [(f"label {label} names", number) for label, number in sorted(self.labels.items())]
        named += [("versions names", number) for number in self.specific]
        return [f"{by} version {number}, which is not published" for by, number in named if number not in published]

    def labelled(self, label: str, version: int) -> "Policy":
        """With a label on another version; 0 takes the label away, and the canary's share with it."""
        labels = {name: number for name, number in self.labels.items() if name != label}
        if version:
            labels[label] = version
        share = self.canary_share if CANARY in labels else 0.0
        return replace(self, labels=labels, canary_share=share)

    def rolled_back(self, servable: Sequence[int], to: int = 0) -> "Policy":
        """With `stable` on the version below the one that should be live, or on `to`.

        Raises:
            InvalidRequest: there is no version below.
        """
        live = self.live(servable)
        below = [number for number in servable if number < live]
        if not to and not below:
            raise InvalidRequest(f"expected a version below {live} to go back to, there are: {list(servable)}")
        return self.labelled(STABLE, to or below[-1])

    def _eligible(self, servable: Sequence[int]) -> list[int]:
        """Those that may be live, ascending."""
        stable = self.labels.get(STABLE, 0)
        chosen = [number for number in servable if not self.specific or number in self.specific or number == stable]
        if stable:
            return [number for number in chosen if number <= stable]
        canary = self.labels.get(CANARY, 0)
        return [number for number in chosen if number != canary] or chosen


def parse_policy(text: str) -> Policy:
    """Reads what serving.json holds.

    Raises:
        BrokenPolicy: it is not what was expected; the message says what was and what came.
    """
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenPolicy(f"{FILE}: expected JSON, got text that is not: {error}") from None
    return _from_json(document)


def merge_policy(policy: Policy, changes: Mapping[str, Any]) -> Policy:
    """Applies a JSON merge patch (RFC 7396): keys replace, null removes. New `versions` replace the old ones whole.

    Raises:
        InvalidRequest: what comes out is no policy.
    """
    document: dict[str, Any] = json.loads(format_policy(policy)) | changes
    if isinstance(changes.get("labels"), dict):
        merged = {**policy.labels, **changes["labels"]}
        document["labels"] = {label: number for label, number in merged.items() if number is not None}
    try:
        return _from_json({key: value for key, value in document.items() if value is not None})
    except BrokenPolicy as error:
        raise InvalidRequest(str(error)) from error


def _from_json(document: Any) -> Policy:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(document, dict) or document.keys() - set(_KEYS):
        found = (
            f"the keys {', '.join(map(_shown, sorted(document)))}" if isinstance(document, dict) else _shown(document)
        )
        raise BrokenPolicy(f"{FILE}: expected an object with the keys {', '.join(_KEYS)}, got {found[:200]}")
    latest, specific = _versions(document.get("versions", {"latest": 1}))
    labels = _labels(document.get("labels", {}))
    share = document.get("canary_share", 0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise BrokenPolicy(f"{FILE}: expected canary_share to be 0 to 1, got {_shown(share)}")
    if share and CANARY not in labels:
        raise BrokenPolicy(f"{FILE}: expected the label {CANARY} beside a canary_share of {share}, found none")
    return Policy(latest, specific, labels, float(share))


def format_policy(policy: Policy) -> str:
    """The same as text."""
    versions = {"specific": list(policy.specific)} if policy.specific else {"latest": policy.latest}
    labels = dict(sorted(policy.labels.items()))
    return json.dumps({"versions": versions, "labels": labels, "canary_share": policy.canary_share}, indent=2) + "\n"


def read_policy(model: Path) -> Policy:
    """Reads the policy of a model's folder; without a file, the default one.

    Raises:
        BrokenPolicy: there is one that cannot be read or understood.
    """
    try:
        with (model / FILE).open("rb") as stream:
            text = stream.read(_LARGEST_FILE_BYTES + 1)
        if len(text) > _LARGEST_FILE_BYTES:
            raise BrokenPolicy(f"{FILE}: expected at most {_LARGEST_FILE_BYTES} bytes, got more")
        return parse_policy(text.decode())
    except FileNotFoundError:
        return Policy()
    except OSError as error:
        raise BrokenPolicy(f"{FILE} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BrokenPolicy(f"{FILE}: expected UTF-8, got something else") from error


def live_version(models: Path, name: str) -> int:
    """The version that should answer by default, as far as files tell; 0 where nothing is published.

    Where serving.json cannot be understood, or wants nothing that there is, it is the highest.
    """
    published = list_versions(models).get(name, [])
    highest = max(published, default=0)
    try:
        return read_policy(models / name).live(published) or highest
    except BrokenPolicy:
        return highest


def change_policy(
    models: Path, name: str, change: Change, refused: Sequence[int] = (), *, dry_run: bool = False
) -> tuple[Policy, Policy]:
    """Changes one model's policy, one caller after the other, and writes it in one step.

    Args:
        models: the models directory.
        name: the model.
        change: what to do.
        refused: published versions that are known to be broken.
        dry_run: only say what would come of it.

    Returns:
        The policy before and after.

    Raises:
        ModelNotFound: no version of such a model is published.
        InvalidRequest: the new policy names a version that is not published, or is not valid.
        BrokenPolicy: the file cannot be understood or written; it is as it was.
    """
    published = list_versions(models).get(name)
    if published is None:
        raise ModelNotFound(f"no version of a model {name[:100]!r} is published")
    with _alone(models / name):
        before = read_policy(models / name)
        after = change(before, [number for number in published if number not in refused])
        merge_policy(after, {})  # is it one that could be read again?
        if after == before:
            return before, after
        missing = [gap for gap in after.missing(published) if gap not in before.missing(published)]
        if missing:
            raise InvalidRequest(f"{'; '.join(missing)}; there are: {published}")
        if dry_run:
            return before, after
        try:
            replace_text(models / name / FILE, format_policy(after), durable=True)
        except OSError as error:
            raise BrokenPolicy(f"{FILE} cannot be written, nothing was changed: {error.strerror}") from error
    return before, after


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One change at a time. The lock is the folder itself and ends with its holder, so nothing is ever left over."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise BrokenPolicy(f"the model's folder cannot be opened: {error.strerror}") from error
    try:
        end = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise BrokenPolicy(f"somebody else has been changing {FILE} for {_LOCK_WAIT_S:g} s") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _versions(value: Any) -> tuple[int, tuple[int, ...]]:  # noqa: ANN401 - whatever JSON holds
    match value:
        case {"latest": latest, **others} if not others and _is_version(latest):
            return latest, ()
        case {"specific": [_, *_] as specific, **others} if not others and all(_is_version(one) for one in specific):
            return 1, tuple(sorted(set(specific)))
    expected = '{"latest": N} or {"specific": [N, ...]}'
    raise BrokenPolicy(f"{FILE}: expected versions to be {expected} with N of 1 or more, got {_shown(value)}")


def _labels(value: Any) -> dict[str, int]:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(value, dict):
        raise BrokenPolicy(f"{FILE}: expected labels to be an object, got {_shown(value)}")
    for label, number in value.items():
        if not _LABEL.fullmatch(label):
            raise BrokenPolicy(f"{FILE}: expected a label of letters, digits, '.', '_', '-', got {_shown(label)}")
        if not _is_version(number):
            raise BrokenPolicy(f"{FILE}: expected label {label} to name a version of 1 or more, got {_shown(number)}")
    return value


def _is_version(value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < _LARGEST


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    return repr(value)[:100]
