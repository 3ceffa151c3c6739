"""The routing table: which engines answer for which version of which model.

The supervisor writes it into one file, always whole, by rename; fronts read it again whenever the file has changed. So
a front needs nobody to talk to, and goes on with the last table when the supervisor is gone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from service.errors import ModelNotFound, Unavailable


@dataclass(frozen=True)
class VersionRoute:
    """One version.

    Attributes:
        state: START, LOADING, AVAILABLE, UNLOADING or END, as in TensorFlow Serving.
        sockets: Unix socket paths of its engines that answer.
        engine: engine and precision, such as "openvino/bf16"; empty until loaded.
        error: why it does not serve; empty when it does.
    """

    state: str
    sockets: tuple[str, ...] = ()
    engine: str = ""
    error: str = ""


@dataclass(frozen=True)
class ModelRoute:
    """One model: its versions by number, and the one that answers by default (0 while there is none)."""

    live: int
    versions: Mapping[int, VersionRoute]


@dataclass(frozen=True)
class Routes:
    """The whole table.

    Attributes:
        models: by name.
        draining: the service is about to end and should get no new traffic.
        restarts: engine processes that died and were replaced, since the supervisor started.
    """

    models: Mapping[str, ModelRoute] = field(default_factory=dict)
    draining: bool = False
    restarts: int = 0

    def resolve(self, model: str, version: int) -> tuple[str, int]:
        """Turns what a client asked for into a model name and a version number.

        Args:
            model: a name, or empty for the only one there is.
            version: a number, or 0 for the live one.

        Raises:
            ModelNotFound: there is no such model or version.
            Unavailable: it is known, but nothing of it can answer.
        """
        if not self.models:
            raise Unavailable("no model is loaded yet")
        names = ", ".join(sorted(self.models))
        if not model:
            if len(self.models) > 1:
                raise ModelNotFound(f"expected a model name, got none; there are: {names}")
            model = next(iter(self.models))
        found = self.models.get(model)
        if found is None:
            raise ModelNotFound(f"no model {model!r}; there are: {names}")
        if not version:
            if not found.live:
                raise Unavailable(f"no version of {model!r} can answer at present")
            return model, found.live
        asked = found.versions.get(version)
        if asked is None or asked.state != "AVAILABLE":
            usable = sorted(n for n, one in found.versions.items() if one.state == "AVAILABLE")
            raise ModelNotFound(f"no version {version} of {model!r} is served; there are: {usable}")
        return model, version

    def sockets(self, model: str, version: int) -> tuple[str, ...]:
        """The sockets of a version's engines; none when it is not served."""
        found = self.models.get(model)
        route = found.versions.get(version) if found else None
        return route.sockets if route else ()


def write_routes(path: Path, routes: Routes) -> None:
    """Replaces the file in one step."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(routes)), encoding="utf-8")
    unfinished.rename(path)


def read_routes(path: Path) -> Routes:
    """Reads the file; an empty table when the supervisor has not written one yet."""
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Routes()
    models = {
        name: ModelRoute(
            live=model["live"],
            versions={
                int(number): VersionRoute(**(version | {"sockets": tuple(version["sockets"])}))
                for number, version in model["versions"].items()
            },
        )
        for name, model in table["models"].items()
    }
    return Routes(models, table["draining"], table["restarts"])
