"""The routing table: which engines answer for which version of which model, and which version answers a request.

The supervisor writes it into one file, always whole, by rename; fronts read it again whenever the file has changed. So
a front needs nobody to talk to, and goes on with the last table when the supervisor is gone.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from service.errors import InvalidRequest, ModelNotFound, Unavailable
from service.files import replace_text

STABLE: Final = "stable"
"""The label of the version that answers who names neither version nor label."""

CANARY: Final = "canary"
"""The label of the version that answers a share of them instead."""


@dataclass(frozen=True)
class VersionRoute:
    """One version.

    Attributes:
        state: START, LOADING, AVAILABLE, UNLOADING or END, as in TensorFlow Serving.
        sockets: Unix socket paths of its engines that answer.
        engine: engine and precision, such as "openvino/bf16"; empty until loaded.
        error: why it does not serve; empty when it does.
        side_px: S of the model's input; 0 until loaded.
        class_names: in the order of the model's scores; none until loaded.
    """

    state: str
    sockets: tuple[str, ...] = ()
    engine: str = ""
    error: str = ""
    side_px: int = 0
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelRoute:
    """One model.

    Attributes:
        live: the version that answers by default; 0 while there is none.
        versions: by number: those that are loaded or on the way there or back, and of the others that are published
            those that were served before or were refused.
        labels: the version that each label names. `stable` is not among them: it is always the live one.
        canary_share: of the requests that name neither version nor label, the part that the canary answers, 0 to 1.
        error: what cannot be done of what the operator wants; empty when nothing is wrong.
    """

    live: int
    versions: Mapping[int, VersionRoute]
    labels: Mapping[str, int] = field(default_factory=dict)
    canary_share: float = 0.0
    error: str = ""

    @property
    def refused(self) -> Sequence[int]:
        """Published versions that failed to load or to prove themselves, and are not served."""
        return [number for number, version in self.versions.items() if version.state == "END" and version.error]


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

    def resolve(self, model: str, version: int = 0, label: str = "", request_id: str = "") -> tuple[str, int]:
        """Turns what a client asked for into a model name and a version number.

        Args:
            model: a name, or empty for the only one there is.
            version: a number, or 0 for none in particular.
            label: a label, or empty for none in particular.
            request_id: decides whether the canary answers, always alike for the same text; empty leaves it to chance.

        Raises:
            InvalidRequest: a version and a label are asked for.
            ModelNotFound: there is no such model, version or label.
            Unavailable: it is known, but nothing of it can answer.
        """
        if version and label:
            raise InvalidRequest(f"expected a version or a label, got both: {version} and {label[:100]!r}")
        if not self.models:
            raise Unavailable("no model is loaded yet")
        model, found = self._find(model)
        if version:
            if not _serves(found, version):
                usable = [number for number in sorted(found.versions) if _serves(found, number)]
                raise ModelNotFound(f"no version {version} of {model!r} is served; there are: {usable}")
            return model, version
        if label and label != STABLE:
            labelled = _labelled(model, found, label)
            if not _serves(found, labelled):
                state = found.versions[labelled].state if labelled in found.versions else "not published"
                raise Unavailable(f"version {labelled} of {model!r}, labelled {label!r}, cannot answer: it is {state}")
            return model, labelled
        if not found.live:
            raise Unavailable(f"no version of {model!r} can answer at present")
        canary = found.labels.get(CANARY, 0)
        if not label and found.canary_share and _serves(found, canary) and _draw(request_id) < found.canary_share:
            return model, canary
        return model, found.live

    def states(self, model: str, version: int = 0, label: str = "") -> Mapping[int, VersionRoute]:
        """What is known of versions that serve and of those that do not, as GetModelStatus of TensorFlow Serving tells.

        Args:
            model: a name, or empty for the only one there is.
            version: only this one; 0 for all.
            label: only the one with this label; empty for all.

        Returns:
            State, and the error's text where there is one, by version number, ascending.

        Raises:
            InvalidRequest: a version and a label are asked for.
            ModelNotFound: there is no such model, version or label.
        """
        if version and label:
            raise InvalidRequest(f"expected a version or a label, got both: {version} and {label[:100]!r}")
        model, found = self._find(model)
        if not version and not label:
            return dict(sorted(found.versions.items()))
        number = version or (found.live if label == STABLE else _labelled(model, found, label))
        if number not in found.versions:
            raise ModelNotFound(f"no version {number} of {model!r}; there are: {sorted(found.versions)}")
        return {number: found.versions[number]}

    def sockets(self, model: str, version: int) -> tuple[str, ...]:
        """The sockets of a version's engines; none when it is not served."""
        found = self.models.get(model)
        route = found.versions.get(version) if found else None
        return route.sockets if route else ()

    def class_names(self, model: str, version: int) -> tuple[str, ...]:
        """A version's labels in the order of its scores; none when it is not served."""
        found = self.models.get(model)
        route = found.versions.get(version) if found else None
        return route.class_names if route else ()

    def _find(self, model: str) -> tuple[str, ModelRoute]:
        if not model and len(self.models) != 1:
            raise ModelNotFound(f"expected a model name, got none; there are: {self._names}")
        model = model or next(iter(self.models))
        found = self.models.get(model)
        if found is None:
            raise ModelNotFound(f"no model {model[:100]!r}; there are: {self._names}")
        return model, found

    @property
    def _names(self) -> str:
        return ", ".join(sorted(self.models)) or "none"


def write_routes(path: Path, routes: Routes) -> None:
    """Replaces the file in one step."""
    replace_text(path, json.dumps(asdict(routes)))


def read_routes(path: Path) -> Routes:
    """Reads the file; an empty table when the supervisor has not written one yet."""
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Routes()
    models = {
        name: ModelRoute(
            **model
            | {
                "versions": {
                    int(number): VersionRoute(
                        **(version | {name: tuple(version[name]) for name in ("sockets", "class_names")})
                    )
                    for number, version in model["versions"].items()
                }
            }
        )
        for name, model in table["models"].items()
    }
    return Routes(models, table["draining"], table["restarts"])


def _serves(model: ModelRoute, version: int) -> bool:
    return version in model.versions and model.versions[version].state == "AVAILABLE"


def _labelled(name: str, model: ModelRoute, label: str) -> int:
    if label not in model.labels:
        known = ", ".join(sorted({*model.labels, STABLE}))
        raise ModelNotFound(f"no label {label[:100]!r} of {name!r}; there are: {known}")
    return model.labels[label]


def _draw(request_id: str) -> float:
    """Evenly from 0 up to, not including, 1."""
    if not request_id:
        return random.random()
    return int.from_bytes(hashlib.sha256(request_id.encode(errors="surrogatepass")).digest()[:6]) / 2**48
