"""Whether this front can answer: ready means that every live model has just answered a real image.

A probe image goes the way of any request: queue, decode, model, scores. It is sent when the routing table changes,
every few seconds while all is well, and often while it is not.
"""

import base64
from collections.abc import Callable
from typing import Any, Final

from service.classifier import Classifier
from service.errors import GraftError
from service.metrics import expect
from service.reactor import Cancellable, Reactor
from service.request import Answer, Request
from service.routes import STABLE, Routes

PROBE_IMAGE: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGUlEQVR42mNsaGhgIAUwMZAIRjWMahg6GgDJTAGg54KQ4AAAAABJRU5ErkJggg=="
)
"""A grey PNG of 16 x 16 pixels."""

_LEAST_TIMEOUT_S: Final = 5.0
_NEXT_WHEN_READY_S: Final = 5.0
_NEXT_WHEN_NOT_S: Final = 0.05


class Readiness:
    """Follows whether the models of a classifier answer.

    Attributes:
        ready: the latest verdict.

    Args:
        classifier: through which to probe.
        reactor: the loop that both run on.
        on_change: called with the new verdict when it changes.
        target_s: time within which answers should be there; a probe waits among them, so it has as long, or 5 s.
    """

    def __init__(
        self,
        classifier: Classifier,
        reactor: Reactor,
        on_change: Callable[[bool], None] | None = None,
        *,
        target_s: float = 0.0,
    ) -> None:
        self.ready = False
        self._timeout_s = max(_LEAST_TIMEOUT_S, target_s)
        self._was_ready = False  # later, a model that is added must not take the others' readiness away
        self._classifier = classifier
        self._reactor = reactor
        self._on_change = on_change
        self._next: Cancellable | None = None
        classifier.on_routes = self._look_now
        self._look()

    def _look_now(self) -> None:
        """The table is another one; a round that is under way sees that at its end."""
        if self._next:
            self._next.cancel()
            self._look()

    def _look(self) -> None:
        """Starts a round of probes, and looks again soon."""
        self._next = None
        routes = self._classifier.routes
        live = [name for name, model in routes.models.items() if model.live]
        if routes.draining or not live or (not self._was_ready and _still_loading(routes)):
            self._conclude(routes, ready=False)
            return
        answered = dict.fromkeys(live, False)

        def heard(name: str, answer: Answer) -> None:
            answered[name] = not answer.results[0].HasField("error")
            expect(answer.model, answer.version)
            del waiting[name]
            if not waiting:
                self._conclude(routes, ready=all(answered.values()))

        waiting = dict.fromkeys(live)
        for name in live:
            request = Request([PROBE_IMAGE], name, top_k=1, timeout_s=self._timeout_s, label=STABLE, probe=True)
            try:
                self._classifier.submit(request, lambda answer, name=name: heard(name, answer))  # type: ignore[misc]
            except GraftError:
                self._conclude(routes, ready=False)
                return

    def _conclude(self, probed: Routes, *, ready: bool) -> None:
        self._was_ready = self._was_ready or ready
        if ready != self.ready:
            self.ready = ready
            if self._on_change:
                self._on_change(ready)
        if self._classifier.routes is not probed:
            self._look()
        else:
            seconds = _NEXT_WHEN_READY_S if ready else _NEXT_WHEN_NOT_S
            self._next = self._reactor.call_later(seconds, self._look)


def describe(routes: Routes) -> dict[str, Any]:
    """The models for people: which version is live, and what every other one is doing or why it is not served."""
    return {
        name: {"live": model.live}
        | ({"labels": dict(model.labels)} if model.labels else {})
        | ({"canary_share": model.canary_share} if model.canary_share else {})
        | ({"error": model.error} if model.error else {})
        | {
            "versions": {
                str(number): {"state": one.state}
                | ({"engine": one.engine} if one.engine else {})
                | ({"engines": len(one.sockets)} if one.sockets else {})
                | ({"error": one.error} if one.error else {})
                for number, one in sorted(model.versions.items())
            },
        }
        for name, model in sorted(routes.models.items())
    }


def _still_loading(routes: Routes) -> bool:
    """Whether a model that has nothing live yet is about to."""
    return any(
        not model.live and any(version.state == "LOADING" for version in model.versions.values())
        for model in routes.models.values()
    )
