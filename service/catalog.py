"""Which versions should be served, and the way there from which are.

The models directory states what is wanted: of every model, the highest version that is not known to be broken. `tick`
compares that with what is loaded and takes the next step: load the wanted version beside the old one, switch when it
has proven itself, then let the old one drain. A version that fails is remembered and the old one goes on.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.loaded import LoadedVersion
from service.manifest import MANIFEST
from service.routes import ModelRoute, Routes
from service.settings import Settings
from service.version import list_versions

_log = logging.getLogger("graft.supervisor")


@dataclass
class _Model:
    """One model. `broken` holds what a refused version's directory looked like, so that a repaired one is tried."""

    live: int = 0
    versions: dict[int, LoadedVersion] = field(default_factory=dict)
    broken: dict[int, tuple[int, int]] = field(default_factory=dict)


class Catalog:
    """All models in service.

    Args:
        settings: where the models are and how to run them.
        run_dir: where engines' sockets go.
    """

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._models: dict[str, _Model] = {}
        self._restarts_before = 0

    @property
    def settled(self) -> bool:
        """Whether nothing is loading."""
        return not any(
            version.state == "LOADING" for model in self._models.values() for version in model.versions.values()
        )

    @property
    def empty(self) -> bool:
        """Whether no engine is left."""
        return not self.pids

    @property
    def pids(self) -> Sequence[int]:
        """All engine processes."""
        return [pid for model in self._models.values() for one in model.versions.values() for pid in one.pids]

    def scan(self) -> None:
        """Looks at the models directory and starts what is wanted and not there, drops what is there and not wanted."""
        found = list_versions(self._settings.models)
        for name in found.keys() | self._models.keys():
            model = self._models.setdefault(name, _Model())
            numbers = found.get(name, [])
            model.broken = {
                number: stamp
                for number, stamp in model.broken.items()
                if number in numbers and stamp == self._stamp(name, number)
            }
            wanted = max((number for number in numbers if number not in model.broken), default=0)
            self._aim(name, model, wanted)
            if not numbers and not model.versions:
                del self._models[name]

    def tick(self) -> None:
        """Takes every version one step on."""
        for name, model in self._models.items():
            for number, version in list(model.versions.items()):
                version.tick()
                if version.state == "AVAILABLE" and number != model.live:
                    self._switch(name, model, number)
                elif version.state == "END" and not (version.error and self._exists(name, number)):
                    self._restarts_before += version.restarts
                    del model.versions[number]
                elif version.error and number not in model.broken:
                    model.broken[number] = self._stamp(name, number)

    def unload_all(self) -> None:
        """Drains every engine."""
        for model in self._models.values():
            model.live = 0
            for version in model.versions.values():
                version.unload()

    def kill_all(self) -> None:
        """Ends every engine at once."""
        for model in self._models.values():
            for version in model.versions.values():
                version.kill()

    def routes(self, *, draining: bool) -> Routes:
        """The table for the fronts."""
        models = {
            name: ModelRoute(model.live, {number: one.route() for number, one in sorted(model.versions.items())})
            for name, model in sorted(self._models.items())
        }
        restarts = self._restarts_before + sum(
            one.restarts for model in self._models.values() for one in model.versions.values()
        )
        return Routes(models, draining, restarts)

    def _aim(self, name: str, model: _Model, wanted: int) -> None:
        for number, version in model.versions.items():
            outdated = version.state == "LOADING" and number != wanted
            if outdated or (number == model.live and not wanted):
                version.unload()
                model.live = 0 if number == model.live else model.live
        current = model.versions.get(wanted)
        if wanted and (current is None or current.state == "END"):
            _log.info("%s/%d is new: loading", name, wanted)
            path = self._settings.models / name / str(wanted)
            model.versions[wanted] = LoadedVersion(path, self._run_dir, self._settings)

    def _switch(self, name: str, model: _Model, number: int) -> None:
        _log.info("%s: version %d is live%s", name, number, f", was {model.live}" if model.live else "")
        before, model.live = model.live, number
        if before in model.versions:
            model.versions[before].unload()

    def _exists(self, name: str, number: int) -> bool:
        return (self._settings.models / name / str(number)).is_dir()

    def _stamp(self, name: str, number: int) -> tuple[int, int]:
        """What changes when somebody repairs a broken version: its directory is replaced or its manifest written."""
        path = self._settings.models / name / str(number)
        try:
            return os.stat(path).st_ino, os.stat(path / MANIFEST).st_mtime_ns  # noqa: PTH116 - two plain calls
        except OSError:
            return 0, 0
