"""A request on its way through a front: the call, and one job for each of its images."""

from collections.abc import Callable
from dataclasses import dataclass

from protos.classifier_pb2 import Result
from service.cache import AnswerKey
from service.errors import ImageError
from service.link import Link
from service.reactor import Cancellable
from service.request import Answer, Pixels, Request
from service.wire import ACTIVATION_MAP, ALL_SCORES, FLOAT32, PIXELS, PIXELS_SHA256

ShareKey = tuple[AnswerKey, bool]
"""What jobs that share an answer have in common; and whether they are bulk: others must not wait where bulk does."""


class Call:
    """A request on its way. `cancel` when nobody waits for the answer any more.

    Attributes:
        request: what was asked.
        model, version: what answers; another version when that one is gone.
        deadline: by the engines' clock.
        class_names: the version's.
        results: by the images' order; None where there is none yet.
        jobs: those without a result, by number.
        timer: at the deadline.
        on_end: called once, with the answer or, for nobody, without; None when it has ended.
    """

    def __init__(self, request: Request, model: str, version: int, deadline: float) -> None:
        self.request = request
        self.model = model
        self.version = version
        self.deadline = deadline
        self.class_names: tuple[str, ...] = ()
        self.results: list[Result | None] = [None] * len(request.images)
        self.jobs: dict[int, Job] = {}
        self.timer: Cancellable | None = None
        self.on_end: Callable[[Call, Answer | None], None] | None = None

    def cancel(self) -> None:
        """Drops what has not run yet; the callback is not called."""
        if self.on_end:
            self.on_end(self, None)


@dataclass(eq=False, slots=True)
class Job:
    """One image of a call.

    Attributes:
        call: whose.
        index: its place there.
        number: that no other job of this front has.
        image: the bytes that an engine gets.
        link: to the engine that holds it; None while it waits for one.
        solo: an engine died while it held this image.
        running: it is alone in its engine at this moment.
        wire: the number under which its engine knows it; another's, when it took that one's place.
        key: what its answer may be shared by; None when nobody shares it.
        leader: the job of another call whose answer it waits for, instead of being sent itself.
        followers: jobs of other calls that wait for this one's answer.
    """

    call: Call
    index: int
    number: int
    image: bytes | memoryview
    link: "Link[Job] | None" = None
    solo: bool = False
    running: bool = False
    wire: int = 0
    key: ShareKey | None = None
    leader: "Job | None" = None
    followers: "list[Job] | None" = None

    @property
    def flags(self) -> int:
        """What the answer depends on beside the image's bytes and the number of labels, in the wire's bits."""
        request = self.call.request
        image = request.images[self.index]
        kind = (PIXELS | (FLOAT32 if image.float32 else 0)) if isinstance(image, Pixels) else 0
        asked = (PIXELS_SHA256 if request.pixels_sha256 else 0) | (ALL_SCORES if request.all_scores else 0)
        asked |= ACTIVATION_MAP if request.activation_map else 0
        return kind | asked

    def take_place_of(self, other: "Job") -> None:
        """Becomes what the other was to its engine."""
        self.link, self.wire = other.link, other.wire
        self.solo, self.running = other.solo, other.running


def content(image: bytes | Pixels | ImageError) -> bytes | memoryview:
    """The bytes that an engine gets; none where there is no image."""
    if isinstance(image, ImageError):
        return b""
    return image.values if isinstance(image, Pixels) else image
