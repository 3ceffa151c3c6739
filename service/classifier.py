"""The one data plane under every protocol: admission, routing, retry, deadline.

A front hands in a `Request` and is called back once with an `Answer`; what the protocol looked like is not known here.
Image bytes go to an engine process and results come back; nothing is decoded here. Everything runs in the one thread of
the front's event loop, so nothing is locked and no call waits.

What happens to an image when its engine dies: it is sent again to another engine of the same version, marked to run
alone, because it may be what killed the first. An image that was alone in two engines when they died is answered as
poison, and its digest remembered. While no engine is left, images wait for the supervisor's next one, up to their
deadline. If the version itself is gone, the whole request starts again on the live one, so that one answer never mixes
two versions.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protos.classifier_pb2 import Error as ErrorMessage
from protos.classifier_pb2 import Result
from service.admission import Admission
from service.cache import AnswerCache, AnswerKey
from service.errors import (
    BY_CODE,
    CorruptImage,
    DeadlineExceeded,
    EmptyImage,
    GraftError,
    ImageError,
    ImageTooLarge,
    InternalError,
    InvalidRequest,
    Overloaded,
    PoisonImage,
    UnsupportedFormat,
)
from service.link import Link
from service.reactor import Cancellable, Reactor
from service.routes import Routes, read_routes
from service.wire import (
    ACTIVATION_MAP,
    ALL_SCORES,
    BULK,
    FLOAT32,
    PIXELS,
    PIXELS_SHA256,
    SOLO,
    Kind,
    classify_header,
    frame,
)

MAX_TOP_K: Final = 10_000
"""Most labels per image; what a frame to an engine can ask for is 16 bits."""

_ROUTES_POLL_S: Final = 0.05
_POISON_REMEMBERED: Final = 1000
_DEATHS_OF_POISON: Final = 2
_SHARED_BYTES: Final = 4 << 20
"""Larger files are not looked up: their digest would hold up the front, and they hardly come twice."""
_KEPT: Final = {"", EmptyImage.code, UnsupportedFormat.code, CorruptImage.code, ImageTooLarge.code}
"""Codes of results that another run would give again; without a code it is an answer."""
_POISON: Final = "this image brought engines down before"


@dataclass(frozen=True, slots=True)
class Pixels:
    """An image that needs no decode: the model's input as the client sent it. The engine checks its size and values.

    Attributes:
        values: S * S * 3 numbers, row by row: bytes, or little-endian float32 of 0 to 255.
        float32: which of the two.
    """

    values: bytes | memoryview
    float32: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """Images to classify with one version of one model.

    Attributes:
        images: whole image files, pixels, or why there is none in the request.
        model: name; empty for the only one.
        version: number; 0 for none in particular.
        top_k: labels per image, 1 to MAX_TOP_K.
        pixels_sha256: also return the digest of the pixels.
        timeout_s: seconds until the answer is of no more use.
        label: of the version; empty for none in particular.
        request_id: as the client calls the request; the same one is always answered by the canary or never.
        all_scores: also return every score, in the order of the version's class names.
        activation_map: also return the class activation map of each image's best label.
        bulk: everybody who is not goes first.
        probe: asks whether there are answers at all, so it is let in always and counted nowhere.
    """

    images: Sequence[bytes | Pixels | ImageError]
    model: str = ""
    version: int = 0
    top_k: int = 5
    pixels_sha256: bool = False
    timeout_s: float = math.inf
    label: str = ""
    request_id: str = ""
    all_scores: bool = False
    activation_map: bool = False
    bulk: bool = False
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One result per image, in the request's order, all of the same version. A failed image's result is an error.

    Attributes:
        model: the model's name.
        version: its version's number.
        results: what became of each image.
        class_names: the version's, in the order of its scores.
    """

    model: str
    version: int
    results: Sequence[Result]
    class_names: tuple[str, ...] = ()


class Call:
    """A request on its way. `cancel` when nobody waits for the answer any more."""

    def __init__(self, request: Request, model: str, version: int, deadline: float) -> None:
        self.request = request
        self.model = model
        self.version = version
        self.deadline = deadline
        self.class_names: tuple[str, ...] = ()
        self.results: list[Result | None] = [None] * len(request.images)
        self.jobs: dict[int, _Job] = {}
        self.timer: Cancellable | None = None
        self.on_end: Callable[[Call, Answer | None], None] | None = None

    def cancel(self) -> None:
        """Drops what has not run yet; the callback is not called."""
        if self.on_end:
            self.on_end(self, None)


@dataclass(eq=False, slots=True)
class _Job:
    """One image of a call.

    Attributes:
        solo: an engine died while it held this image.
        running: it is alone in its engine at this moment.
        deaths: engines that died while it was alone in them.
        wire: the number under which its engine knows it; another's, when it took that one's place.
        key: what its answer may be shared by; None when nobody shares it.
        leader: the job of another call whose answer it waits for, instead of being sent itself.
        followers: jobs of other calls that wait for this one's answer.
    """

    call: Call
    index: int
    number: int
    image: bytes | memoryview
    link: "Link[_Job] | None" = None
    solo: bool = False
    running: bool = False
    deaths: int = 0
    wire: int = 0
    key: "tuple[AnswerKey, bool] | None" = None
    leader: "_Job | None" = None
    followers: "list[_Job] | None" = None


class Classifier:
    """Answers requests through the engines in the routing table.

    Args:
        reactor: this front's event loop.
        routes_path: the table, written by the supervisor.
        max_queue: most images in flight in this front; see Admission.
        max_images: most images in one request.
        max_image_bytes: largest image file.
        target_s: time within which nearly all interactive images should be answered; see Admission.
        cache_bytes: for answers to images that come again; 0 for no sharing of answers at all.
        clock: monotonic seconds, the same clock as the engines'.
    """

    def __init__(
        self,
        reactor: Reactor,
        routes_path: Path,
        *,
        max_queue: int,
        max_images: int,
        max_image_bytes: int,
        target_s: float = math.inf,
        cache_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.routes = Routes()
        self._reactor = reactor
        self._routes_path = routes_path
        self._routes_stamp: tuple[int, int] | None = None
        self._admission = Admission(max_queue, target_s)
        self._cache = AnswerCache(cache_bytes) if cache_bytes else None
        self._leaders: dict[tuple[AnswerKey, bool], _Job] = {}
        self._max_images = max_images
        self._max_image_bytes = max_image_bytes
        self._clock = clock
        self._links: dict[str, Link[_Job]] = {}
        self._waiting: list[_Job] = []
        self._next_number = 0
        self._poison: OrderedDict[bytes, None] = OrderedDict()
        self._poll: Cancellable | None = None
        self._next_poll = clock()
        self._follow_routes()

    @property
    def in_flight(self) -> int:
        """Images that were let in and are not answered."""
        return self._admission.in_flight

    def admit(self, request: Request, images: int = 1) -> tuple[str, int]:
        """Whether a request could be answered in time. Costs next to nothing, so ask before reading its images.

        Args:
            request: its images do not matter.
            images: how many there are or, before that is known, may be.

        Returns:
            The model's name and the version that would answer.

        Raises:
            ModelNotFound, Unavailable: nothing can answer this.
            Overloaded: it could not be answered in time.
        """
        resolved = self._resolve(request, request.model)
        try:
            self._check(resolved, request, images)
        except Overloaded:
            # a loop that is busy with refusing has not come to what was answered meanwhile, and engines would run dry
            heard = [link.hear() for link in self._accepting(*resolved)]
            if not any(heard):
                raise
            self._check(resolved, request, images)
        return resolved

    def submit(self, request: Request, done: Callable[[Answer], None]) -> Call:
        """Starts a request.

        Args:
            request: what to classify.
            done: called once with the answer, at the latest at the deadline, unless the call is cancelled.

        Raises:
            InvalidRequest: no image, more than one request may hold, or a top_k that nobody can want.
            ModelNotFound, Unavailable: nothing can answer this.
            Overloaded: it could not be answered in time; nothing was started.
        """
        if not 1 <= len(request.images) <= self._max_images:
            raise InvalidRequest(f"expected 1 to {self._max_images} images in a request, got {len(request.images)}")
        if not 1 <= request.top_k <= MAX_TOP_K:
            raise InvalidRequest(f"expected top_k to be 1 to {MAX_TOP_K}, got {request.top_k}")
        images, bulk = 0 if request.probe else len(request.images), request.bulk
        model, version = self._resolve(request, request.model) if request.probe else self.admit(request, images)
        call = Call(request, model, version, self._clock() + request.timeout_s)

        def end(call: Call, answer: Answer | None) -> None:
            call.on_end = None
            self._forget(call)
            self._admission.leave(images, bulk=bulk)
            if answer:
                done(answer)

        call.on_end = end
        self._admission.enter(images, bulk=bulk)
        if request.timeout_s < math.inf:
            call.timer = self._reactor.call_later(request.timeout_s, lambda: self._expire(call))
        self._start(call)
        return call

    def resolve(self, model: str, version: int = 0, label: str = "", request_id: str = "") -> tuple[str, int]:
        """`Routes.resolve` on the table as it is now: what we know may be a moment old, so look before saying no."""
        try:
            return self.routes.resolve(model, version, label, request_id)
        except GraftError:
            self._read_routes()
            return self.routes.resolve(model, version, label, request_id)

    def close(self) -> None:
        """Hangs up on every engine and stops following the table."""
        if self._poll:
            self._poll.cancel()
        for link in self._links.values():
            link.close()
        self._links.clear()

    # -- a call's way

    def _check(self, resolved: tuple[str, int], request: Request, images: int) -> None:
        backlogs = [link.backlog for link in self._accepting(*resolved)]
        self._admission.check(backlogs, images, bulk=request.bulk, timeout_s=request.timeout_s)

    def _start(self, call: Call) -> None:
        call.class_names = self.routes.class_names(call.model, call.version)
        for index, image in enumerate(call.request.images):
            self._next_number += 1
            job = _Job(call, index, self._next_number, _content(image))
            call.jobs[job.number] = job
        for job in list(call.jobs.values()):
            refusal = self._refusal(job)
            if refusal:
                self._finish(job, _failure(refusal))
            elif self._cache is None or call.request.probe or len(job.image) > _SHARED_BYTES:
                self._dispatch(job)
            else:
                self._share(job, self._cache)

    def _dispatch(self, job: _Job) -> None:
        """Sends a job to the least busy engine of its version, or lets it wait for one."""
        call = job.call
        links = self._accepting(call.model, call.version)
        if not links:
            self._waiting.append(job)
            return
        bulk = call.request.bulk
        link = links[0] if len(links) == 1 else min(links, key=lambda link: link.backlog.work(bulk=bulk))
        job.link, job.running = link, False
        job.wire = job.number
        link.jobs[job.wire] = job
        link.backlog.add(1, bulk=bulk)
        flags = _flags(call.request, job) | (SOLO if job.solo else 0) | (BULK if bulk else 0)
        link.send(classify_header(job.number, call.deadline, call.request.top_k, flags, len(job.image)), job.image)

    def _accepting(self, model: str, version: int) -> list[Link[_Job]]:
        """The engines of a version that take images."""
        links = self._links
        return [link for path in self.routes.sockets(model, version) if (link := links.get(path)) and link.accepting]

    def _finish(self, job: _Job, result: Result) -> None:
        if job.key is not None:
            self._tell_followers(job, job.key, result)
        call = job.call
        call.jobs.pop(job.number, None)
        call.results[job.index] = result
        if not call.jobs and call.on_end:
            results = [one or Result() for one in call.results]
            call.on_end(call, Answer(call.model, call.version, results, call.class_names))

    def _expire(self, call: Call) -> None:
        late = DeadlineExceeded(f"no answer within {call.request.timeout_s:g} s")
        for job in list(call.jobs.values()):
            self._withdraw(job)
            self._finish(job, _failure(late))

    def _forget(self, call: Call) -> None:
        if call.timer:
            call.timer.cancel()
        for job in call.jobs.values():
            self._withdraw(job)
        call.jobs.clear()

    def _withdraw(self, job: _Job) -> None:
        """Takes a job back from its engine, or from those that wait for one or for another job's answer."""
        if job.leader is not None:
            if job.leader.followers:
                job.leader.followers.remove(job)
            job.leader = None
        elif job.key is not None and job.followers:
            self._bequeath(job, job.key, job.followers)
        elif job.link is None:
            self._waiting = [one for one in self._waiting if one is not job]
        elif job.link.jobs.pop(job.wire, None):
            job.link.backlog.add(-1, bulk=job.call.request.bulk)
            job.link.send(frame(Kind.CANCEL, job.wire))
            self._retire(job.link)
        if job.key is not None:
            self._leaders.pop(job.key, None)
            job.key = None

    # -- answers that are shared

    def _share(self, job: _Job, cache: AnswerCache) -> None:
        """Answers a job with what is known, lets it wait for the same image of another call, or sends it."""
        call = job.call
        request = call.request
        digest = hashlib.sha256(job.image).digest()
        answer_key = AnswerKey(call.model, call.version, request.top_k, _flags(request, job), digest)
        known = cache.get(answer_key)
        if known is not None:
            self._finish(job, Result.FromString(known))
            return
        key = answer_key, request.bulk  # an interactive image must not wait where bulk does
        leader = self._leaders.get(key)
        if leader is not None:
            job.leader = leader
            leader.followers = [*(leader.followers or ()), job]
            return
        job.key = key
        self._leaders[key] = job
        self._dispatch(job)

    def _tell_followers(self, job: _Job, key: tuple[AnswerKey, bool], result: Result) -> None:
        """Keeps a result that another run would give again; gives it to those who wait for it, if it can be theirs."""
        del self._leaders[key]
        job.key = None
        followers, job.followers = job.followers or (), None
        code = result.error.code
        for_all = not code or issubclass(BY_CODE[code], ImageError | InternalError)
        kept = Result()
        kept.CopyFrom(result)
        kept.ClearField("timing_ms")  # those who get it did not cost this time
        if self._cache is not None and code in _KEPT:
            self._cache.put(key[0], kept.SerializeToString())
        for follower in followers:
            follower.leader = None
            if for_all:
                own = Result()
                own.CopyFrom(kept)
                self._finish(follower, own)
            elif self._cache is not None:  # it was the other's deadline, or the version that only the other insisted on
                self._share(follower, self._cache)

    def _bequeath(self, job: _Job, key: tuple[AnswerKey, bool], followers: list[_Job]) -> None:
        """Nobody waits for a job any more, but for its answer: the next in line takes its place, wherever it is."""
        heir = followers.pop(0)
        heir.leader, heir.key, heir.followers = None, key, followers
        heir.link, heir.wire = job.link, job.wire
        heir.solo, heir.running, heir.deaths = job.solo, job.running, job.deaths
        for follower in followers:
            follower.leader = heir
        self._leaders[key] = heir
        job.key = job.followers = None
        if heir.link is None:
            self._waiting = [*(one for one in self._waiting if one is not job), heir]
        else:
            heir.link.jobs[heir.wire] = heir

    # -- engines

    def _on_frame(self, link: Link[_Job], kind: Kind, number: int, body: bytes) -> None:
        if kind is Kind.RESULT:
            job = link.jobs.pop(number, None)
            if job:  # else it was cancelled while it ran
                link.backlog.add(-1, bulk=job.call.request.bulk)
                result = Result.FromString(body)
                if job.wire != job.number and self._too_late_for_another(job, result):
                    self._dispatch(job)
                else:
                    self._finish(job, result)
        elif kind is Kind.RUNNING and number in link.jobs:
            link.jobs[number].running = True
        self._retire(link)

    def _too_late_for_another(self, job: _Job, result: Result) -> bool:
        """Whether the engine dropped it at the deadline of the one whose place it took."""
        return result.error.code == DeadlineExceeded.code and self._clock() < job.call.deadline

    def _on_lost(self, link: Link[_Job]) -> None:
        self._links.pop(link.path, None)
        lost = list(link.jobs.values())
        link.jobs.clear()
        for job in lost:
            if job.number not in job.call.jobs:  # given up meanwhile
                continue
            job.link = None
            job.deaths += job.running
            job.solo = True
            if job.deaths >= _DEATHS_OF_POISON:
                self._remember_poison(job)
                self._finish(job, _failure(PoisonImage("two engines died while they worked on this image alone")))
            else:
                self._dispatch(job)

    def _retire(self, link: Link[_Job]) -> None:
        """Hangs up on an engine that takes nothing more and owes nothing; it ends when all fronts have."""
        if not link.accepting and not link.jobs:
            self._links.pop(link.path, None)
            link.close()

    # -- routes

    def _follow_routes(self) -> None:
        now = self._clock()
        self._admission.observe_lag(max(0.0, now - self._next_poll))
        self._next_poll = now + _ROUTES_POLL_S
        self._poll = self._reactor.call_later(_ROUTES_POLL_S, self._follow_routes)
        self._read_routes()
        self._connect()

    def _resolve(self, request: Request, model: str) -> tuple[str, int]:
        return self.resolve(model, request.version, request.label, request.request_id)

    def _read_routes(self) -> None:
        try:
            status = self._routes_path.stat()
        except FileNotFoundError:
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._routes_stamp:
            self.routes = read_routes(self._routes_path)
            self._routes_stamp = stamp
            if self._cache is not None:
                models = self.routes.models.items()
                served = {
                    (name, number)
                    for name, model in models
                    for number, version in model.versions.items()
                    if version.state == "AVAILABLE"
                }
                self._cache.keep(served)

    def _connect(self) -> None:
        listed = {
            path
            for model in self.routes.models.values()
            for version in model.versions.values()
            for path in version.sockets
        }
        for path in listed - self._links.keys():
            try:
                self._links[path] = Link(path, self._reactor, self._on_frame, self._on_lost)
            except OSError:
                continue  # it died a moment ago; the supervisor is about to list another
        for path in self._links.keys() - listed:
            link = self._links[path]
            link.accepting = False
            self._retire(link)
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            if job.number in job.call.jobs:
                self._resume(job)

    def _resume(self, job: _Job) -> None:
        """Sends a waiting job, on the live version when its own is no longer served."""
        call = job.call
        try:
            model, version = self.routes.resolve(call.model, call.request.version or call.version)
        except GraftError:
            try:
                model, version = self._resolve(call.request, call.model)
            except GraftError as error:
                self._finish(job, _failure(error))
                return
        if version == call.version:
            self._dispatch(job)
            return
        for other in call.jobs.values():
            self._withdraw(other)
        call.jobs.clear()
        call.results = [None] * len(call.results)
        call.model, call.version = model, version
        self._start(call)

    # -- images that never reach an engine

    def _refusal(self, job: _Job) -> ImageError | None:
        asked = job.call.request.images[job.index]
        if isinstance(asked, ImageError):
            return asked
        if isinstance(asked, Pixels):  # the engine knows what size they must have
            return PoisonImage(_POISON) if self._poison and _digest(job) in self._poison else None
        if not asked:
            return EmptyImage("expected an image file, got 0 bytes")
        if len(asked) > self._max_image_bytes:
            return ImageTooLarge(f"expected at most {self._max_image_bytes} bytes, got {len(asked)}")
        if self._poison and _digest(job) in self._poison:
            return PoisonImage(_POISON)
        return None

    def _remember_poison(self, job: _Job) -> None:
        self._poison[_digest(job)] = None
        if len(self._poison) > _POISON_REMEMBERED:
            self._poison.popitem(last=False)


def _content(image: bytes | Pixels | ImageError) -> bytes | memoryview:
    if isinstance(image, ImageError):
        return b""
    return image.values if isinstance(image, Pixels) else image


def _flags(request: Request, job: _Job) -> int:
    """What the answer depends on beside the image's bytes and the number of labels, in the wire's bits."""
    image = request.images[job.index]
    kind = (PIXELS | (FLOAT32 if image.float32 else 0)) if isinstance(image, Pixels) else 0
    asked = (PIXELS_SHA256 if request.pixels_sha256 else 0) | (ALL_SCORES if request.all_scores else 0)
    asked |= ACTIVATION_MAP if request.activation_map else 0
    return kind | asked


def _digest(job: _Job) -> bytes:
    return hashlib.sha256(job.image).digest()


def _failure(error: GraftError) -> Result:
    return Result(error=ErrorMessage(code=error.code, detail=error.detail))
