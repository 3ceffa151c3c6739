"""The one data plane under every protocol: admission, routing, retry, deadline.

A front hands in a `Request` and is called back once with an `Answer`; what the protocol looked like is not known here.
Image bytes go to an engine process and results come back; nothing is decoded here. Everything runs in the one thread of
the front's event loop, so nothing is locked and no call waits.

What happens to an image when its engine dies: it is sent again to another engine of the same version, marked to run
alone, because it may be what killed the first. An image that was alone in two engines when they died is answered as
poison. Who waits for one that hangs may give up before its engine is killed, and ask again: so its digest is remembered
from the first such death on, until it is answered. While no engine is left, images wait for the supervisor's next one,
up to their deadline. If the version itself is gone, the whole request starts again on the live one, so that one answer
never mixes two versions.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from protos.classifier_pb2 import Error as ErrorMessage
from protos.classifier_pb2 import Result
from service.admission import Admission
from service.backlog import Backlog
from service.call import Call, Job, content
from service.errors import (
    DeadlineExceeded,
    EmptyImage,
    GraftError,
    ImageError,
    ImageTooLarge,
    InvalidRequest,
    Overloaded,
    PoisonImage,
)
from service.fleet import Fleet
from service.link import Link
from service.reactor import Reactor
from service.request import MAX_TOP_K, Answer, Pixels, Request, check_count
from service.routes import Routes
from service.sharing import Sharing
from service.wire import BULK, SOLO, WHOLE_HOST, Kind, classify_header

_DEATHS_REMEMBERED: Final = 1000
_DEATHS_OF_POISON: Final = 2
_COMPANY_WEIGHT: Final = 1 / 16
_MOST_COMPANY: Final = 0.25
_HEAR_S: Final = 0.001
"""So often at most an engine is listened to out of turn."""
_WARY_S: Final = 1.0
"""For so long after a refusal deadlines are looked at before anything else is done for a request."""


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

    Attributes:
        on_routes: called when the routing table is another one.
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
        self._reactor = reactor
        self._admission = Admission(max_queue, target_s)
        self._sharing = Sharing(cache_bytes, self._dispatch, self._finish)
        self._max_images = max_images
        self._max_image_bytes = max_image_bytes
        self._clock = clock
        self._waiting: list[Job] = []
        self._next_number = 0
        self._heard = self._refused = -math.inf
        self._company = 0.0  # how many of the last images came while others were in flight, as a share
        self._deaths: OrderedDict[bytes, int] = OrderedDict()  # of engines, by the digest of what was alone in them
        self._told = Routes()
        self.on_routes: Callable[[], None] = lambda: None
        self._fleet = Fleet(
            reactor, routes_path, on_frame=self._on_frame, on_lost=self._on_lost, on_look=self._on_look, clock=clock
        )
        self._fleet.follow()

    @property
    def routes(self) -> Routes:
        """The routing table as this front last read it."""
        return self._fleet.routes

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
            if not self._hear(self._fleet.accepting(*resolved)):
                raise
            self._check(resolved, request, images)
        return resolved

    def admit_deadline(self, timeout_s: float) -> None:
        """Whether a request that has so many seconds might be answered in time. Ask before reading what it asks for.

        Costs nothing while nothing is refused, as it is not looked at then.

        Raises:
            Overloaded: whatever it asks for, `admit` would say so.
        """
        if self._clock() > self._refused + _WARY_S:
            return
        versions = self._fleet.versions
        try:
            self._admission.check_deadline([_backlogs(links) for links in versions], timeout_s)
        except Overloaded:
            if not self._hear([link for links in versions for link in links]):
                raise
            self._admission.check_deadline([_backlogs(links) for links in self._fleet.versions], timeout_s)

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
        check_count(len(request.images), self._max_images)
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
        """See Routes.resolve."""
        return self._fleet.resolve(model, version, label, request_id)

    def close(self) -> None:
        """Hangs up on every engine."""
        self._fleet.close()

    # -- a call's way

    def _resolve(self, request: Request, model: str) -> tuple[str, int]:
        return self.resolve(model, request.version, request.label, request.request_id)

    def _check(self, resolved: tuple[str, int], request: Request, images: int) -> None:
        backlogs = _backlogs(self._fleet.accepting(*resolved))
        self._admission.check(backlogs, images, bulk=request.bulk, timeout_s=request.timeout_s)

    def _hear(self, links: Sequence[Link[Job]]) -> bool:
        """Whether engines had said something that the loop, busy with refusing, has not come to. They would run dry."""
        self._refused = now = self._clock()
        if now < self._heard + _HEAR_S:
            return False
        self._heard = now
        heard = [link.hear() for link in links]
        return any(heard)

    def _start(self, call: Call) -> None:
        call.class_names = self.routes.class_names(call.model, call.version)
        for index, image in enumerate(call.request.images):
            self._next_number += 1
            job = Job(call, index, self._next_number, content(image))
            call.jobs[job.number] = job
        for job in list(call.jobs.values()):
            refusal = self._refusal(job)
            if refusal:
                self._finish(job, _failure(refusal))
            else:
                self._sharing.start(job)

    def _dispatch(self, job: Job) -> None:
        """Sends a job to the least busy engine of its version, if it shows life, or lets it wait for one."""
        call = job.call
        links = self._fleet.accepting(call.model, call.version)
        if not links:
            self._waiting.append(job)
            return
        bulk = call.request.bulk
        link = links[0] if len(links) == 1 else min(links, key=lambda link: (link.quiet, link.backlog.work(bulk=bulk)))
        whole_host = len(call.request.images) == 1 and not bulk and not job.solo and self._has_host_to_itself()
        job.link, job.running = link, False
        job.wire = job.number
        link.jobs[job.wire] = job
        link.backlog.add(1, bulk=bulk)
        flags = job.flags | (SOLO if job.solo else 0) | (BULK if bulk else 0) | (WHOLE_HOST if whole_host else 0)
        top_k, image = call.request.top_k, job.image
        header = classify_header(job.number, self._clock(), call.deadline, top_k, flags, len(image))
        if bulk:
            link.send_bulk(job.wire, header, image)
        else:
            link.send(header, image)

    def _has_host_to_itself(self) -> bool:
        """Whether nothing else is to be done, and is not likely to come at once: on all cores an image costs more."""
        idle = self._fleet.idle
        self._company += _COMPANY_WEIGHT * ((not idle) - self._company)
        return idle and self._company < _MOST_COMPANY

    def _finish(self, job: Job, result: Result) -> None:
        self._sharing.tell(job, result)
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

    def _withdraw(self, job: Job) -> None:
        """Takes a job back from its engine, or from those that wait for one or for another job's answer."""
        follows = job.leader is not None
        heir = self._sharing.leave(job)
        if follows:
            return
        if heir:
            self._replace(job, heir)
        elif job.link is None:
            self._waiting = [one for one in self._waiting if one is not job]
        elif job.link.jobs.pop(job.wire, None):
            job.link.backlog.add(-1, bulk=job.call.request.bulk)
            job.link.cancel(job.wire)
            if job.running:
                job.link.suspect = job
            self._fleet.retire(job.link)

    def _replace(self, job: Job, heir: Job) -> None:
        """Puts a job that waits for the same answer where another was: at its engine, or among those without one."""
        heir.take_place_of(job)
        if heir.link is None:
            self._waiting = [*(one for one in self._waiting if one is not job), heir]
        else:
            heir.link.jobs[heir.wire] = heir

    # -- engines

    def _on_frame(self, link: Link[Job], kind: Kind, number: int, body: bytes) -> None:
        if kind is Kind.RESULT:
            job = link.jobs.pop(number, None)
            if link.suspect and link.suspect.wire == number:
                link.suspect = None
            if job:  # else it was cancelled while it ran
                link.backlog.add(-1, bulk=job.call.request.bulk)
                if job.solo:
                    self._deaths.pop(_digest(job), None)
                result = Result.FromString(body)
                if job.wire != job.number and self._too_late_for_another(job, result):
                    self._dispatch(job)
                else:
                    self._finish(job, result)
        elif kind is Kind.RUNNING and number in link.jobs:
            link.jobs[number].running = True
        self._fleet.retire(link)

    def _too_late_for_another(self, job: Job, result: Result) -> bool:
        """Whether the engine dropped it at the deadline of the one whose place it took."""
        return result.error.code == DeadlineExceeded.code and self._clock() < job.call.deadline

    def _on_lost(self, link: Link[Job]) -> None:
        lost = list(link.jobs.values())
        link.jobs.clear()
        for alone in (job for job in (*lost, link.suspect) if job and job.running):
            self._count_death(alone)
        for job in lost:
            if job.number not in job.call.jobs:  # given up meanwhile
                continue
            job.link = None
            job.solo = True
            if self._killed(job) >= _DEATHS_OF_POISON:
                self._finish(job, _failure(PoisonImage("two engines died while they worked on this image alone")))
            else:
                self._dispatch(job)

    def _on_look(self, late_s: float) -> None:
        self._admission.observe_lag(late_s)
        if self.routes is not self._told:
            self._told = self.routes
            self._sharing.forget(self.routes)
            self.on_routes()
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            if job.number in job.call.jobs:
                self._resume(job)

    def _resume(self, job: Job) -> None:
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

    def _refusal(self, job: Job) -> ImageError | None:
        asked = job.call.request.images[job.index]
        if isinstance(asked, ImageError):
            return asked
        if not isinstance(asked, Pixels):  # of those, the engine knows what size they must have
            if not asked:
                return EmptyImage("expected an image file, got 0 bytes")
            if len(asked) > self._max_image_bytes:
                return ImageTooLarge(f"expected at most {self._max_image_bytes} bytes, got {len(asked)}")
        killed = self._killed(job)
        job.solo = killed > 0
        return PoisonImage("this image brought engines down before") if killed >= _DEATHS_OF_POISON else None

    def _killed(self, job: Job) -> int:
        """Engines that died while this image was alone in them."""
        return self._deaths.get(_digest(job), 0) if self._deaths else 0

    def _count_death(self, job: Job) -> None:
        digest = _digest(job)
        self._deaths[digest] = self._deaths.pop(digest, 0) + 1
        if len(self._deaths) > _DEATHS_REMEMBERED:
            self._deaths.popitem(last=False)


def _backlogs(links: Sequence[Link[Job]]) -> list[Backlog]:
    """Of the engines that show life, if any does."""
    return [link.backlog for link in links if not link.quiet] or [link.backlog for link in links]


def _digest(job: Job) -> bytes:
    return hashlib.sha256(job.image).digest()


def _failure(error: GraftError) -> Result:
    return Result(error=ErrorMessage(code=error.code, detail=error.detail))
