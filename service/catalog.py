"""Which versions should be served, and the way there from which are.

What is wanted follows from what is published, from the operator's policy, and from which versions were refused. `tick`
compares that with what is loaded and takes the next step. One version of a model loads at a time, beside those that
serve, the most urgent first. When the one that should be live has proven itself, the table switches to it; the one that
was live stays for a while, so that going back takes a moment, and then drains. A version that fails is refused: the
others go on, and it is tried again when its directory changes, or after a while if it may have been the host's fault.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from service.loaded import LoadedVersion
from service.policy import FILE, BrokenPolicy, Policy, read_policy
from service.published import names, versions
from service.routes import STABLE, ModelRoute, Routes, VersionRoute
from service.settings import Settings

_POLICY_EVERY_S: Final = 0.2
"""How soon a changed policy is noticed: one `stat` per model."""
_FIRST_RETRY_S: Final = 10.0
_LONGEST_RETRY_S: Final = 600.0

_log = logging.getLogger("graft.supervisor")

_Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class _Refusal:
    """A version that failed.

    Attributes:
        error: why.
        stamp: what its directory looked like when it began to load; None where that could not be read.
        tries: how often it has failed so.
        retry_at: when to try again though nothing has changed.
    """

    error: str
    stamp: _Stamp | None
    tries: int
    retry_at: float


@dataclass
class _Model:
    """One model.

    Attributes:
        published: version numbers in its folder, ascending.
        policy: what the operator wants; None while that has never been known.
        policy_error: what is wrong with it now.
        policy_stamp: what its file looked like when it was last read; None for no file.
        live: the version that answers by default; 0 for none.
        previous: the version that was live before, and until when it stays.
        versions: those that load or serve.
        stamps: what their directories looked like when they began to.
        leaving: those that drain.
        ended: published versions that were served and are not any more.
        refused: published versions that failed.
    """

    published: list[int] = field(default_factory=list)
    policy: Policy | None = None
    policy_error: str = ""
    policy_stamp: tuple[int, int, int] | None = (0, 0, 0)
    live: int = 0
    previous: int = 0
    previous_until: float = 0.0
    versions: dict[int, LoadedVersion] = field(default_factory=dict)
    stamps: dict[int, _Stamp | None] = field(default_factory=dict)
    leaving: list[tuple[int, LoadedVersion]] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    refused: dict[int, _Refusal] = field(default_factory=dict)

    @property
    def all(self) -> Iterator[LoadedVersion]:
        yield from self.versions.values()
        yield from (version for _, version in self.leaving)

    def servable(self, now: float) -> list[int]:
        """Published, and not refused or due to be tried again."""
        return [n for n in self.published if n not in self.refused or now >= self.refused[n].retry_at]

    def waiting(self, wanted: Sequence[int]) -> list[int]:
        return [number for number in wanted if number not in self.versions]


class Catalog:
    """All models in service.

    Args:
        settings: where the models are and how to run them.
        run_dir: where engines' sockets go.
        load: begins to load a version directory.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        load: Callable[[Path, Path, Settings], LoadedVersion] = LoadedVersion,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._load = load
        self._clock = clock
        self._models: dict[str, _Model] = {}
        self._next_policies = 0.0
        self._error = ""
        self._folder_errors: dict[str, str] = {}
        self._device = 0
        self._restarts_before = 0

    @property
    def settled(self) -> bool:
        """Whether everything that is wanted is loaded or refused, and nothing of what is published cannot be read."""
        unread = self._error or any(self._folder_errors.values()) or not self._settings.models.is_dir()
        return not unread and not any(self._busy(model, self._wanted(model)[1]) for model in self._models.values())

    @property
    def calm(self) -> bool:
        """Whether all is settled, and no engine is being replaced or ended."""
        return self.settled and all(version.calm for model in self._models.values() for version in model.all)

    @property
    def empty(self) -> bool:
        """Whether no engine is left."""
        return not self.pids

    @property
    def pids(self) -> Sequence[int]:
        """All engine processes."""
        return [pid for model in self._models.values() for one in model.all for pid in one.pids]

    def scan(self) -> None:
        """Looks at the models directory: what is published, and which refused versions look different now.

        What cannot be read, or a directory that is not there any more, as one whose volume is unmounted, is no news:
        what is served stays.
        """
        root = self._settings.models
        found: list[str] = []
        try:
            found = names(root)
            error = self._missing(found)
        except OSError as failed:
            error = failed.strerror or str(failed)
        if error != self._error:
            self._error = error
            _log.error("the models directory %s: %s", root, f"{error}; nothing changes" if error else "it is back")
        if error:
            return
        for name in {*found, *self._models}:
            try:
                published = versions(root / name)
            except OSError as failed:
                self._say(name, f"its folder cannot be read: {failed.strerror}")
                continue
            self._say(name, "")
            if name not in self._models and not published:
                continue
            model = self._models.setdefault(name, _Model())
            model.published = published
            self._read_policy(name, model)
            model.ended &= set(model.published)
            model.refused = {
                number: refusal
                for number, refusal in model.refused.items()
                if number in model.published and _stamp(self._path(name, number)) in {refusal.stamp, None}
            }
            if not model.published and not list(model.all):
                del self._models[name]

    def tick(self) -> None:
        """Takes every model one step on."""
        if self._clock() >= self._next_policies:
            self._next_policies = self._clock() + _POLICY_EVERY_S
            for name, model in self._models.items():
                self._read_policy(name, model)
        for name, model in self._models.items():
            for version in list(model.all):
                version.tick()
            self._sort_out(name, model)
            self._step(name, model)

    def unload_all(self) -> None:
        """Drains every engine."""
        for model in self._models.values():
            model.published, model.live, model.previous = [], 0, 0
            for number in list(model.versions):
                self._unload(model, number)

    def kill_all(self) -> None:
        """Ends every engine at once."""
        for model in self._models.values():
            for version in model.all:
                version.kill()

    def routes(self, *, draining: bool) -> Routes:
        """The table for the fronts."""
        models = {name: self._route(name, model) for name, model in sorted(self._models.items())}
        restarts = self._restarts_before + sum(one.restarts for model in self._models.values() for one in model.all)
        return Routes(models, draining, restarts)

    def _missing(self, found: Sequence[str]) -> str:
        """What shows that the models directory is not the one that it was; empty when nothing does.

        Raises:
            OSError: it cannot be read.
        """
        try:
            device = self._settings.models.stat().st_dev
        except FileNotFoundError:
            return "it is not there any more" if self._models else ""
        if self._models and not found and device != self._device:
            return "it is empty, and on another volume than before"
        self._device = device
        return ""

    def _say(self, name: str, error: str) -> None:
        """Notes what is wrong with a model's folder, and logs it once."""
        if error and self._folder_errors.get(name) != error:
            _log.error("%s: %s; nothing changes", name, error)
        self._folder_errors[name] = error

    # -- one model's way

    def _wanted(self, model: _Model) -> tuple[int, Sequence[int]]:
        """The version that should be live, and all that should be loaded, the most urgent first."""
        if model.policy is None:
            return 0, []
        servable = model.servable(self._clock())
        return model.policy.live(servable), model.policy.wanted(servable)

    def _sort_out(self, name: str, model: _Model) -> None:
        """Files away what has proven itself, failed or ended."""
        for number, version in list(model.versions.items()):
            if version.state == "AVAILABLE":
                model.refused.pop(number, None)
                model.ended.discard(number)
            elif version.state == "END":
                self._drop(version)
                del model.versions[number]
                model.refused[number] = self._refusal(name, number, version, model)
        for number, version in list(model.leaving):
            if version.state == "END":
                self._drop(version)
                model.leaving.remove((number, version))
                model.ended |= {number} & set(model.published)

    def _refusal(self, name: str, number: int, version: LoadedVersion, model: _Model) -> _Refusal:
        tries = model.refused[number].tries + 1 if number in model.refused else 1
        wait_s = float("inf") if version.lasting else min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2 ** min(tries - 1, 10))
        again = "when its directory changes" + ("" if version.lasting else f", or in {wait_s:g} s")
        _log.error("%s/%d is refused: %s; it is tried again %s", name, number, version.error, again)
        return _Refusal(version.error, model.stamps[number], tries, self._clock() + wait_s)

    def _step(self, name: str, model: _Model) -> None:
        target, wanted = self._wanted(model)
        if target != model.live and target in model.versions and model.versions[target].state == "AVAILABLE":
            self._switch(name, model, target)
        gone = model.live not in model.published
        if gone and not target and model.live:
            _log.info("%s: version %d was removed and nothing can take its place", name, model.live)
            model.live = 0
        busy = self._busy(model, wanted)
        if model.previous not in model.published or self._clock() >= model.previous_until or busy:
            model.previous = 0  # with it there would be three versions in memory at once
        for number in list(model.versions):
            if number not in {model.live, model.previous, *wanted}:
                self._unload(model, number)
        waiting = model.waiting(wanted)
        if waiting and not self._loading(model):
            number, path = waiting[0], self._path(name, waiting[0])
            _log.info("%s/%d: loading", name, number)
            model.stamps[number] = _stamp(path)
            model.versions[number] = self._load(path, self._run_dir, self._settings)

    def _switch(self, name: str, model: _Model, target: int) -> None:
        _log.info("%s: version %d is live%s", name, target, f", was {model.live}" if model.live else "")
        model.previous, model.live = model.live, target
        model.previous_until = self._clock() + self._settings.keep_previous_s

    def _unload(self, model: _Model, number: int) -> None:
        version = model.versions.pop(number)
        version.unload()
        model.leaving.append((number, version))

    def _drop(self, version: LoadedVersion) -> None:
        self._restarts_before += version.restarts

    @staticmethod
    def _loading(model: _Model) -> bool:
        return any(version.state == "LOADING" for version in model.versions.values())

    def _busy(self, model: _Model, wanted: Sequence[int]) -> bool:
        return self._loading(model) or bool(model.waiting(wanted))

    def _route(self, name: str, model: _Model) -> ModelRoute:
        """States of all versions: what went before is hidden by what comes, and both by what is there."""
        versions = {number: VersionRoute("END") for number in model.ended}
        versions |= {number: VersionRoute("END", error=refusal.error) for number, refusal in model.refused.items()}
        versions |= {number: VersionRoute("START") for number in model.waiting(self._wanted(model)[1])}
        versions |= {number: version.route() for number, version in model.leaving}
        versions |= {number: version.route() for number, version in model.versions.items()}
        policy = model.policy or Policy()
        labels = {label: number for label, number in policy.labels.items() if label != STABLE}
        error = self._folder_errors.get(name) or model.policy_error or "; ".join(policy.missing(model.published))
        return ModelRoute(model.live, dict(sorted(versions.items())), labels, policy.canary_share, error)

    # -- files

    def _read_policy(self, name: str, model: _Model) -> None:
        """Follows serving.json. One that cannot be understood changes nothing, as does one gone with its folder.

        If none was ever understood, nothing is loaded: better none than a version that somebody turned away from.
        """
        folder = self._settings.models / name
        try:
            status = (folder / FILE).stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            if not folder.is_dir():
                return
            stamp = None
        except OSError:
            stamp = None
        if stamp == model.policy_stamp:
            return
        model.policy_stamp = stamp
        try:
            policy = read_policy(folder)
        except BrokenPolicy as error:
            model.policy_error = str(error)
            _log.error("%s: %s; %s", name, error, "nothing changes" if model.policy else "nothing is loaded")
            return
        if model.policy is not None and model.policy != policy:
            _log.info("%s: the policy has changed", name)
        model.policy, model.policy_error = policy, ""

    def _path(self, name: str, number: int) -> Path:
        return self._settings.models / name / str(number)


def _stamp(path: Path) -> _Stamp | None:
    """What changes when somebody repairs a version: any of its files. None, no news, where it cannot be read."""
    files = []
    try:
        found = sorted(path.rglob("*"))
    except OSError:
        return None
    for file in found:
        try:
            status = file.stat()
        except OSError:
            continue
        files.append((str(file.relative_to(path)), status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(files)
