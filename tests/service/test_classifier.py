"""service/classifier.py: every image of every request is answered once, by one version, whatever becomes of engines.

Engines are small servers in the test's own event loop that speak service.wire; the test decides when each of them
answers, dies or drains.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from protos.classifier_pb2 import Error as ErrorMessage
from protos.classifier_pb2 import Result, Timing
from service.backlog import Backlog
from service.call import Call
from service.classifier import Classifier
from service.errors import EmptyImage, GraftError, InvalidBase64, InvalidRequest, ModelNotFound, Overloaded, Unavailable
from service.reactor import AsyncioReactor
from service.request import MAX_TOP_K, Answer, Pixels, Request
from service.routes import ModelRoute, Routes, VersionRoute, write_routes
from service.wire import (
    ALL_SCORES,
    FLOAT32,
    PIXELS,
    PIXELS_SHA256,
    SOLO,
    WHOLE_HOST,
    Classify,
    FrameReader,
    Kind,
    frame,
    parse_classify,
)

_DEADLINE_S = 20.0


async def _until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + _DEADLINE_S
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        await asyncio.sleep(0.001)


class _Engine:
    """One engine of one version, on a Unix socket. Does nothing by itself."""

    def __init__(self, path: Path, version: int) -> None:
        self.path = str(path)
        self.version = version
        self.jobs: dict[int, Classify] = {}
        self.seen: list[Classify] = []
        self.cancelled: list[int] = []
        self.hung_up = False
        self._frames = FrameReader()
        self._loop = asyncio.get_running_loop()
        self._connection: socket.socket | None = None
        self.backlog = Backlog(self.path, create=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._loop.add_reader(self._listener, self._accept)

    def answer(self, number: int, code: str = "") -> None:
        """The label says which version answered, and for which image; with a code it is an error."""
        job = self.jobs.pop(number)
        result = Result(label=f"{self.version}:{job.image[:20].decode()}", score=0.5, timing_ms=Timing(batch_size=1))
        if code:
            result = Result(error=ErrorMessage(code=code))
        self._send(frame(Kind.RESULT, number, result.SerializeToString()))

    def answer_all(self) -> None:
        for number in list(self.jobs):
            self.answer(number)

    def announce(self, number: int) -> None:
        """Says that a solo job runs now."""
        assert self.jobs[number].flags & SOLO
        self._send(frame(Kind.RUNNING, number))

    def drain(self) -> None:
        self._send(frame(Kind.DRAINING, 0))

    def die(self) -> None:
        """Gone, with whatever it held, like a process that was killed."""
        for one in (self._listener, self._connection):
            if one and one.fileno() != -1:
                self._loop.remove_reader(one)
                one.close()
        Path(self.path).unlink(missing_ok=True)
        self.backlog.close()

    def _accept(self) -> None:
        self._connection, _ = self._listener.accept()
        self._connection.setblocking(False)
        self._loop.add_reader(self._connection, self._read)

    def _send(self, data: bytes) -> None:
        assert self._connection is not None
        with contextlib.suppress(ConnectionError):  # the classifier has hung up meanwhile
            self._connection.sendall(data)

    def _read(self) -> None:
        assert self._connection is not None
        try:
            chunk = self._connection.recv(1 << 16)
        except OSError:
            chunk = b""
        if not chunk:
            self.hung_up = True
            self._loop.remove_reader(self._connection)
            self._connection.close()
        for kind, number, body in self._frames.feed(chunk):
            if kind is Kind.CLASSIFY:
                assert number not in self.jobs
                self.jobs[number] = parse_classify(body)
                self.seen.append(self.jobs[number])
            elif kind is Kind.CANCEL:
                self.cancelled.append(number)
                self.jobs.pop(number, None)


class _Bench:
    """A classifier, its routing table and its engines."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self._folder = folder
        self.routes_path = folder / "routes.json"
        self.engines: list[_Engine] = []
        self.answers: list[Answer] = []
        chosen = {"max_queue": 100, "max_images": 20, "max_image_bytes": 10_000_000} | limits
        self.route({})
        self.classifier = Classifier(AsyncioReactor(asyncio.get_running_loop()), self.routes_path, **chosen)

    def engine(self, version: int = 1) -> _Engine:
        """A new engine; the table does not list it yet."""
        self.engines.append(_Engine(self._folder / f"{len(self.engines)}.sock", version))
        return self.engines[-1]

    def route(self, versions: dict[int, list[_Engine]], live: int = 1) -> None:
        """Lists engines as the ones of the model "pets"; no versions means no model."""
        listed = {
            number: VersionRoute("AVAILABLE", tuple(engine.path for engine in engines), class_names=("cat", "dog"))
            for number, engines in versions.items()
        }
        write_routes(self.routes_path, Routes({"pets": ModelRoute(live, listed)} if versions else {}))

    async def serve(self, versions: dict[int, list[_Engine]], live: int = 1) -> None:
        """`route`, and waits until the classifier is connected with exactly these engines."""
        self.route(versions, live)
        paths = {engine.path for engines in versions.values() for engine in engines}
        await _until(
            lambda: {path for path, link in self.classifier._fleet._links.items() if link.accepting} == paths,
            "connected",
        )

    async def begin(self, count: int = 1, live: int = 1) -> list[_Engine]:
        """Engines of version 1 that serve."""
        engines = [self.engine() for _ in range(count)]
        await self.serve({1: engines}, live)
        return engines

    def submit(self, *images: object, timeout_s: float = _DEADLINE_S, **asked: object) -> Call:
        return self.classifier.submit(Request(images, timeout_s=timeout_s, **asked), self.answers.append)

    async def answered(self, count: int = 1) -> Answer:
        """Waits until `count` requests have been answered; returns the last."""
        await _until(lambda: len(self.answers) >= count, f"{count} answer(s)")
        assert len(self.answers) == count
        return self.answers[-1]

    def close(self) -> None:
        self.classifier.close()
        for engine in self.engines:
            engine.die()


def _said(answer: Answer) -> list[str]:
    return [result.error.code or result.label for result in answer.results]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `scenario(bench)` in an event loop; afterwards nothing may be in flight."""
    monkeypatch.setattr("service.fleet._LOOK_S", 0.002)

    def begin(scenario: Callable[[_Bench], Awaitable[None]], **limits: int) -> None:
        async def whole() -> None:
            bench = _Bench(tmp_path, **limits)
            try:
                await asyncio.wait_for(scenario(bench), 3 * _DEADLINE_S)
                assert bench.classifier.in_flight == 0
                assert bench.classifier._waiting == []
                assert bench.classifier._sharing._leaders == {}
                assert all(not link.jobs for link in bench.classifier._fleet._links.values())
            finally:
                bench.close()

        asyncio.run(whole())

    return begin


def test_results_are_in_the_order_of_the_request(run) -> None:
    """However engines order their answers, each image's result is in its image's place."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        bench.submit(b"a", b"b", b"c")
        await _until(lambda: len(engine.jobs) == 3, "sent")
        for number in reversed(list(engine.jobs)):
            engine.answer(number)
        answer = await bench.answered()
        assert (answer.model, answer.version, _said(answer)) == ("pets", 1, ["1:a", "1:b", "1:c"])

    run(scenario)


def test_what_is_asked_reaches_the_engine(run) -> None:
    """Deadline, top_k and flags travel with every image."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        before = time.monotonic()
        bench.submit(b"a", top_k=7, pixels_sha256=True, timeout_s=15)
        await _until(lambda: engine.jobs, "sent")
        (job,) = engine.jobs.values()
        assert (job.top_k, job.flags, job.image) == (7, PIXELS_SHA256 | WHOLE_HOST, b"a")
        assert before + 15 <= job.deadline <= time.monotonic() + 15
        engine.answer_all()
        await bench.answered()

    run(scenario)


def test_pixels_reach_the_engine_as_they_came(run) -> None:
    """Parts of one tensor, of bytes or of floats, as images of their own; the answer knows what the scores are of."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        tensor = memoryview(b"aabb")
        bench.submit(Pixels(tensor[:2]), Pixels(tensor[2:], float32=True), all_scores=True)
        await _until(lambda: len(engine.jobs) == 2, "sent")
        seen = [(job.flags, job.image) for job in engine.jobs.values()]
        assert seen == [(ALL_SCORES | PIXELS, b"aa"), (ALL_SCORES | PIXELS | FLOAT32, b"bb")]
        engine.answer_all()
        assert (await bench.answered()).class_names == ("cat", "dog")

    run(scenario)


def test_an_image_has_the_host_to_itself_while_no_engine_holds_another(run) -> None:
    """Neither of this front nor of another one; and the images of one request are company to each other."""

    async def scenario(bench: _Bench) -> None:
        first, second = await bench.begin(2)

        async def gets_all(*images: bytes) -> list[bool]:
            before = len(first.seen) + len(second.seen)
            bench.submit(*images)
            await _until(lambda: len(first.seen) + len(second.seen) == before + len(images), "sent")
            return [bool(job.flags & WHOLE_HOST) for engine in (first, second) for job in engine.jobs.values()]

        assert await gets_all(b"a") == [True]
        assert sorted(await gets_all(b"b")) == [False, True]
        first.answer_all()
        second.answer_all()
        await bench.answered(2)
        assert await gets_all(b"c", b"d") == [False, False]
        first.answer_all()
        second.answer_all()
        await bench.answered(3)
        other_front = Backlog(second.path)
        other_front.use(second.backlog.claim())
        other_front.add(1, bulk=True)
        assert await gets_all(b"e") == [False]
        other_front.close()
        first.answer_all()
        second.answer_all()
        await bench.answered(4)

    run(scenario)


def test_among_many_an_image_has_the_host_to_itself_only_when_it_has_been_quiet(run) -> None:
    """At half load one often comes alone, and the next soon; a single client is alone again after some requests."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin(1)
        answered = 0

        async def ask(together: int) -> list[bool]:
            nonlocal answered
            for _ in range(together):
                bench.submit(b"a")
            await _until(lambda: len(engine.jobs) == together, "sent")
            flags = [bool(job.flags & WHOLE_HOST) for job in engine.jobs.values()]
            engine.answer_all()
            answered += together
            await bench.answered(answered)
            return flags

        assert [await ask(2) for _ in range(20)][-1] == [False, False]
        lone = [(await ask(1))[0] for _ in range(40)]
        assert not any(lone[:4])
        assert all(lone[20:])

    run(scenario)


def test_pixels_that_kill_engines_are_poison_too(run) -> None:
    """Alone in two engines when they died: answered so, and remembered."""

    async def scenario(bench: _Bench) -> None:
        engines = await bench.begin(3)
        bench.submit(Pixels(b"bad"))
        for _ in range(3):
            await _until(lambda: any(engine.jobs for engine in engines), "sent")
            engine = next(engine for engine in engines if engine.jobs)
            (number,) = engine.jobs
            if engine.jobs[number].flags & SOLO:
                engine.announce(number)
            engine.die()
            engine.jobs.clear()
        assert _said(await bench.answered()) == ["POISON_IMAGE"]
        bench.submit(Pixels(b"bad"))
        assert _said(await bench.answered(2)) == ["POISON_IMAGE"]

    run(scenario)


def test_a_large_image_arrives_whole(run) -> None:
    """Many times what a socket takes at once, three of them, and an answer afterwards."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        images = [bytes([65 + number]) * 3_000_000 for number in range(3)]
        bench.submit(*images)
        await _until(lambda: len(engine.jobs) == 3, "sent")
        assert [job.image for job in engine.jobs.values()] == images
        engine.answer_all()
        assert _said(await bench.answered()) == [f"1:{letter * 20}" for letter in "ABC"]

    run(scenario)


def test_an_engine_that_shows_no_life_is_asked_last(run) -> None:
    """It may hang, and look idle because whoever waited for it has gone; nobody is let in because of it."""

    async def scenario(bench: _Bench) -> None:
        hung, other = await bench.begin(2)
        long_ago = time.monotonic() - 10
        os.utime(hung.path, (long_ago, long_ago))
        await _until(lambda: any(link.quiet for link in bench.classifier._fleet._links.values()), "noticed")
        for number in range(4):
            bench.submit(b"%d" % number)
        await _until(lambda: len(other.jobs) == 4, "all sent to the other")
        assert not hung.jobs
        for engine in (hung, other):
            engine.backlog.publish(1.0, 1.0)
        with pytest.raises(Overloaded, match="4 images wait, 4 s of work"):
            bench.submit(b"late", timeout_s=5.0)
        for engine in (hung, other):
            engine.backlog.publish(0.0, 0.0)
        other.answer_all()
        await bench.answered(4)
        await bench.serve({1: [hung]})
        bench.submit(b"x")
        await _until(lambda: hung.jobs, "asked where there is no other")
        hung.answer_all()
        await bench.answered(5)

    run(scenario)


def test_the_least_busy_engine_gets_the_next_image(run) -> None:
    """Images spread evenly; an engine that answered is preferred to those that have not."""

    async def scenario(bench: _Bench) -> None:
        engines = await bench.begin(3)
        bench.submit(*[str(number).encode() for number in range(6)])
        await _until(lambda: [len(engine.jobs) for engine in engines] == [2, 2, 2], "spread")
        engines[1].answer_all()
        await _until(lambda: sum(len(link.jobs) for link in bench.classifier._fleet._links.values()) == 4, "heard")
        bench.submit(b"next")
        await _until(lambda: engines[1].jobs, "sent to the idle engine")
        for engine in engines:
            engine.answer_all()
        await bench.answered(2)

    run(scenario)


def test_bad_images_never_reach_an_engine(run) -> None:
    """Empty, too large, or already an error: answered in their places, and the good one beside them as ever."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        bench.submit(b"", b"x" * 101, b"good", InvalidBase64("no"), EmptyImage("none"))
        await _until(lambda: engine.jobs, "sent")
        engine.answer_all()
        answer = await bench.answered()
        assert _said(answer) == ["EMPTY_IMAGE", "IMAGE_TOO_LARGE", "1:good", "INVALID_BASE64", "EMPTY_IMAGE"]
        assert answer.results[1].error.detail == "expected at most 100 bytes, got 101"
        assert [job.image for job in engine.seen] == [b"good"]
        bench.submit(b"")
        assert _said(await bench.answered(2)) == ["EMPTY_IMAGE"]

    run(scenario, max_image_bytes=100)


@pytest.mark.parametrize(
    ("images", "asked", "error"),
    [
        ([], {}, InvalidRequest("expected 1 to 3 images in a request, got 0")),
        ([b"a"] * 4, {}, InvalidRequest("expected 1 to 3 images in a request, got 4")),
        ([b"a"], {"top_k": 0}, InvalidRequest(f"expected top_k to be 1 to {MAX_TOP_K}, got 0")),
        ([b"a"], {"top_k": 2**31 - 1}, InvalidRequest(f"expected top_k to be 1 to {MAX_TOP_K}, got 2147483647")),
        ([b"a"], {"model": "cats"}, ModelNotFound("no model 'cats'; there are: pets")),
        ([b"a"], {"version": 9}, ModelNotFound("no version 9 of 'pets' is served; there are: [1]")),
    ],
    ids=["no image", "too many images", "no label", "far too many labels", "unknown model", "unknown version"],
)
def test_a_wrong_request_is_refused_at_once(
    run, images: list[bytes], asked: dict[str, object], error: GraftError
) -> None:
    """Nothing is started, and nothing stays counted as in flight."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        with pytest.raises(type(error)) as refused:
            bench.submit(*images, **asked)
        assert str(refused.value) == str(error)
        assert bench.classifier.in_flight == 0
        bench.submit(b"after")
        await _until(lambda: engine.jobs, "sent")
        engine.answer_all()
        assert _said(await bench.answered()) == ["1:after"]

    run(scenario, max_images=3)


def test_no_model_is_unavailable(run) -> None:
    """Before the first version is loaded, a request is refused as worth another try."""

    async def scenario(bench: _Bench) -> None:
        with pytest.raises(Unavailable):
            bench.submit(b"a")

    run(scenario)


def test_admission_is_exact(run) -> None:
    """Up to max_queue images are in flight; one more is refused; room that is freed can be used at once."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        with pytest.raises(Overloaded, match="expected at most 4 images in flight, there are 0 and 5 more came"):
            bench.submit(*[b"a"] * 5)
        bench.submit(b"a", b"b", b"c")
        with pytest.raises(Overloaded, match="there are 3 and 2 more came"):
            bench.submit(b"d", b"e")
        bench.submit(b"f")
        assert bench.classifier.in_flight == 4
        with pytest.raises(Overloaded):
            bench.submit(b"g")
        await _until(lambda: len(engine.jobs) == 4, "sent")
        assert b"d" not in [job.image for job in engine.seen]
        engine.answer(max(engine.jobs))
        await bench.answered(1)
        bench.submit(b"h")
        with pytest.raises(Overloaded):
            bench.submit(b"i")
        await _until(lambda: len(engine.jobs) == 4, "sent")
        engine.answer_all()
        await bench.answered(3)

    run(scenario, max_queue=4)


def test_what_is_answered_makes_room_before_the_loop_has_come_to_it(run) -> None:
    """A front that is busy with refusing looks for itself, so that an engine that has finished is not left idle."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        for image in (b"a", b"b", b"c", b"d"):
            bench.submit(image)
        await _until(lambda: len(engine.jobs) == 4, "sent")
        engine.answer(max(engine.jobs))
        bench.submit(b"e")  # without having let the loop read
        with pytest.raises(Overloaded):
            bench.submit(b"f")
        await _until(lambda: len(engine.jobs) == 4, "sent")
        engine.answer_all()
        bench.submit(b"g", b"h", b"i", b"j")
        await _until(lambda: len(engine.jobs) == 4, "sent")
        engine.answer_all()
        await bench.answered(6)

    run(scenario, max_queue=4)


def test_a_deadline_is_looked_at_alone_once_something_was_refused(run, monkeypatch) -> None:
    """By the engines of all versions, and by what they have answered and the loop has not come to."""
    monkeypatch.setattr("service.classifier._WARY_S", _DEADLINE_S)

    async def scenario(bench: _Bench) -> None:
        engine, other = bench.engine(), bench.engine(2)
        await bench.serve({1: [engine], 2: [other]})
        for one in (engine, other):
            one.backlog.publish(1.0, 1.0)
        bench.submit(*[b"a"] * 10)
        admit = bench.classifier.admit_deadline
        admit(2.0)
        with pytest.raises(Overloaded, match="10 images wait, 10 s of work"):
            bench.submit(b"b", timeout_s=2.0)
        admit(2.0)  # the other version might be asked for
        bench.submit(*[b"c"] * 10, version=2)
        with pytest.raises(Overloaded, match=r"expected to begin 9\.5 s earlier to be in time"):
            admit(2.0)
        admit(60.0)
        await _until(lambda: len(engine.jobs) == len(other.jobs) == 10, "sent")
        other.answer_all()
        await asyncio.sleep(0.002)  # not so soon after the last time
        admit(2.0)
        engine.answer_all()
        await bench.answered(2)

    run(scenario)


def test_images_of_an_engine_that_died_are_run_elsewhere(run) -> None:
    """The caller notices nothing; the images are marked to run alone, those that were answered are not run again."""

    async def scenario(bench: _Bench) -> None:
        first, second = await bench.begin(2)
        bench.submit(b"a", b"b", b"c", b"d")
        await _until(lambda: len(first.jobs) == len(second.jobs) == 2, "spread")
        kept = next(iter(first.jobs))
        first.answer(kept)
        await _until(lambda: kept not in bench.classifier._fleet._links[first.path].jobs, "heard")
        (lost,) = [job.image for job in first.jobs.values()]
        first.die()
        await _until(lambda: len(second.jobs) == 3, "sent again")
        assert [job.flags for job in second.jobs.values()] == [0, 0, SOLO]
        assert second.seen[-1].image == lost
        second.answer_all()
        assert _said(await bench.answered()) == ["1:a", "1:b", "1:c", "1:d"]

    run(scenario)


def test_images_wait_while_there_is_no_engine(run) -> None:
    """All engines are dead: images wait for the supervisor's next one and are answered by it."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        bench.submit(b"before")
        await _until(lambda: engine.jobs, "sent")
        engine.die()
        bench.route({1: []})
        await _until(lambda: not bench.classifier._fleet._links, "noticed")
        bench.submit(b"meanwhile")
        assert bench.answers == []
        other = bench.engine()
        await bench.serve({1: [other]})
        await _until(lambda: len(other.jobs) == 2, "sent")
        assert {job.image: job.flags for job in other.jobs.values()} == {b"before": SOLO, b"meanwhile": 0}
        other.answer_all()
        await bench.answered(2)
        assert sorted(_said(bench.answers[0]) + _said(bench.answers[1])) == ["1:before", "1:meanwhile"]

    run(scenario)


def test_an_image_that_kills_two_engines_alone_is_poison_and_remembered(run) -> None:
    """Its neighbour is answered; the same bytes are refused from then on without meeting an engine."""

    async def scenario(bench: _Bench) -> None:
        engines = [bench.engine() for _ in range(4)]
        await bench.serve({1: engines[:1]})
        bench.submit(b"good", b"bad")
        for place in range(3):  # in the first engine both run together: nobody knows whose fault it was
            engine = engines[place]
            await _until(lambda engine=engine: any(job.image == b"bad" for job in engine.jobs.values()), "sent")
            if place:
                (number,) = [number for number, job in engine.jobs.items() if job.image == b"bad"]
                engine.announce(number)
                await _until(lambda number=number, engine=engine: _running(bench, engine, number), "announced")
            bench.route({1: engines[place + 1 : place + 2]})
            engine.die()
        last = engines[3]
        await _until(lambda: last.jobs, "sent to the last")
        last.answer_all()
        answer = await bench.answered()
        assert _said(answer) == ["1:good", "POISON_IMAGE"]
        assert "two engines died" in answer.results[1].error.detail
        assert b"bad" not in [job.image for job in last.seen]
        bench.submit(b"bad")
        assert _said(await bench.answered(2)) == ["POISON_IMAGE"]
        bench.submit(b"bad too")
        await _until(lambda: last.jobs, "sent")
        last.answer_all()
        assert _said(await bench.answered(3)) == ["1:bad too"]

    run(scenario)


def _running(bench: _Bench, engine: _Engine, number: int) -> bool:
    return bench.classifier._fleet._links[engine.path].jobs[number].running


def test_an_image_that_hangs_engines_is_poison_when_nobody_waited_for_it(run) -> None:
    """Every client gives up before the engine that hangs is killed; the third meets no engine."""

    async def scenario(bench: _Bench) -> None:
        for suspected in (False, True):
            first, second = bench.engine(), bench.engine()
            await bench.serve({1: [first]})
            call = bench.submit(b"bad")
            await _until(lambda engine=first: engine.jobs, "sent")
            ((number, job),) = first.jobs.items()
            assert bool(job.flags & SOLO) == suspected
            last = first if suspected else second
            if last is second:
                bench.route({1: [second]})
                first.die()
                await _until(lambda engine=second: engine.jobs, "sent alone")
            last.announce(number)
            await _until(lambda engine=last, number=number: _running(bench, engine, number), "announced")
            call.cancel()
            bench.route({1: []})
            last.die()
            await _until(lambda: not bench.classifier._fleet._links, "lost")
        await bench.begin()
        bench.submit(b"bad")
        assert _said(await bench.answered()) == ["POISON_IMAGE"]

    run(scenario)


def test_a_suspect_that_is_answered_is_none_any_more(run) -> None:
    """An engine was killed by somebody else while the image was alone in it; given up or not, the next one answers."""

    async def scenario(bench: _Bench) -> None:
        first, second, third = (bench.engine() for _ in range(3))
        await bench.serve({1: [first]})
        call = bench.submit(b"innocent")
        for here, there in ((first, second), (second, third)):
            await _until(lambda engine=here: engine.jobs, "sent")
            (number,) = here.jobs
            if here is second:
                here.announce(number)
                await _until(lambda number=number: _running(bench, second, number), "announced")
            bench.route({1: [there]})
            here.die()
        await _until(lambda: third.jobs, "sent to the last")
        assert list(bench.classifier._deaths.values()) == [1]
        third.announce(number)
        await _until(lambda: _running(bench, third, number), "announced")
        call.cancel()
        bench.submit(b"innocent")
        await _until(lambda: len(third.seen) == 2, "asked again")
        (link,) = bench.classifier._fleet._links.values()
        assert link.suspect
        third.jobs[number] = third.seen[0]
        third.answer_all()
        await bench.answered()
        assert link.suspect is None
        assert not bench.classifier._deaths

    run(scenario)


def test_bulk_that_is_not_sent_yet_lets_others_go_first(run) -> None:
    """An engine that reads nothing: behind what its socket holds comes the interactive image, then the rest of bulk."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        await _until(lambda: engine._connection, "accepted")
        asyncio.get_running_loop().remove_reader(engine._connection)
        call = bench.submit(*(b"%02d" % number * 1_000_000 for number in range(10)), bulk=True)
        given_up = bench.submit(b"given up" * 100, bulk=True)
        bench.submit(b"interactive")
        given_up.cancel()
        asyncio.get_running_loop().add_reader(engine._connection, engine._read)
        await _until(lambda: len(engine.seen) == 11, "sent")
        images = [job.image for job in engine.seen]
        ahead = sum(map(len, images[: images.index(b"interactive")]))
        (link,) = bench.classifier._fleet._links.values()
        taken = link._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert 0 < ahead <= taken + 2 * 2_000_000  # what the socket holds and what is half in it; with 20 MB in all
        assert not engine.cancelled  # what had not been sent is not sent at all
        engine.answer_all()
        await bench.answered(2)
        assert call.on_end is None

    run(scenario)


def test_an_image_that_only_waited_in_engines_that_died_is_no_poison(run) -> None:
    """Five engines die while they hold it, none while it ran alone: the sixth answers it."""

    async def scenario(bench: _Bench) -> None:
        bench.route({1: []})
        await _until(lambda: bench.classifier.routes.models, "read")
        bench.submit(b"innocent")
        for _ in range(5):
            engine = bench.engine()
            bench.route({1: [engine]})
            await _until(lambda engine=engine: engine.jobs, "sent")
            bench.route({1: []})
            engine.die()
        engine = bench.engine()
        bench.route({1: [engine]})
        await _until(lambda: engine.jobs, "sent")
        engine.answer_all()
        assert _said(await bench.answered()) == ["1:innocent"]

    run(scenario)


def test_at_the_deadline_what_is_there_is_answered(run) -> None:
    """Partial results; the engine is told to forget the rest, and what it says too late is ignored."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        bench.submit(b"in time", b"late", timeout_s=0.6)
        await _until(lambda: len(engine.jobs) == 2, "sent")
        first, second = sorted(engine.jobs)
        late = engine.jobs[second]
        engine.answer(first)
        answer = await bench.answered()
        assert _said(answer) == ["1:in time", "DEADLINE_EXCEEDED"]
        assert answer.results[1].error.detail == "no answer within 0.6 s"
        assert bench.classifier.in_flight == 0
        await _until(lambda: engine.cancelled, "cancelled")
        assert engine.cancelled == [second]
        engine.jobs[second] = late
        engine.answer(second)
        bench.submit(b"next")
        await _until(lambda: engine.jobs, "sent")
        engine.answer_all()
        assert _said(await bench.answered(2)) == ["1:next"]

    run(scenario)


def test_images_that_wait_for_an_engine_have_a_deadline_too(run) -> None:
    """With no engine at all the request still ends."""

    async def scenario(bench: _Bench) -> None:
        bench.route({1: []})
        await _until(lambda: bench.classifier.routes.models, "read")
        bench.submit(b"a", b"b", timeout_s=0.05)
        assert _said(await bench.answered()) == ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]

    run(scenario)


def test_a_cancelled_call_is_never_answered(run) -> None:
    """Its engine is told, its place is free at once, and cancelling again or after the answer does nothing."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        call = bench.submit(b"a", b"b")
        await _until(lambda: len(engine.jobs) == 2, "sent")
        numbers = set(engine.jobs)
        call.cancel()
        call.cancel()
        assert bench.classifier.in_flight == 0
        await _until(lambda: set(engine.cancelled) == numbers, "cancelled")
        other = bench.submit(b"c")
        await _until(lambda: engine.jobs, "sent")
        engine.answer_all()
        assert _said(await bench.answered()) == ["1:c"]
        other.cancel()
        assert bench.classifier.in_flight == 0

    run(scenario)


def test_a_cancelled_call_does_not_wait_for_an_engine_either(run) -> None:
    """Images that were waiting are forgotten; the next engine never sees them."""

    async def scenario(bench: _Bench) -> None:
        bench.route({1: []})
        await _until(lambda: bench.classifier.routes.models, "read")
        bench.submit(b"a").cancel()
        bench.submit(b"b")
        engine = bench.engine()
        bench.route({1: [engine]})
        await _until(lambda: engine.jobs, "sent")
        engine.answer_all()
        await bench.answered()
        assert [job.image for job in engine.seen] == [b"b"]

    run(scenario)


def test_a_version_that_unloads_answers_what_it_has(run) -> None:
    """New images go to the new version; the old engine is hung up on only after its last answer."""

    async def scenario(bench: _Bench) -> None:
        (old,) = await bench.begin()
        bench.submit(b"a")
        await _until(lambda: old.jobs, "sent")
        new = bench.engine(version=2)
        await bench.serve({1: [], 2: [new]}, live=2)
        bench.submit(b"b")
        await _until(lambda: new.jobs, "sent")
        assert not old.hung_up
        old.answer_all()
        assert _said(await bench.answered(1)) == ["1:a"]
        await _until(lambda: old.hung_up, "hung up")
        new.answer_all()
        answer = await bench.answered(2)
        assert (answer.version, _said(answer)) == (2, ["2:b"])

    run(scenario)


def test_an_answer_never_mixes_versions(run) -> None:
    """The old version answered one image and died with the other: both are run again, on the live one."""

    async def scenario(bench: _Bench) -> None:
        (old,) = await bench.begin()
        bench.submit(b"a", b"b")
        await _until(lambda: len(old.jobs) == 2, "sent")
        first = min(old.jobs)
        old.answer(first)
        await _until(lambda: first not in bench.classifier._fleet._links[old.path].jobs, "heard")
        new = bench.engine(version=2)
        write_routes(
            bench.routes_path,
            Routes({"pets": ModelRoute(2, {1: VersionRoute("END"), 2: VersionRoute("AVAILABLE", (new.path,))})}),
        )
        await _until(lambda: new.path in bench.classifier._fleet._links, "connected")
        old.die()
        await _until(lambda: len(new.jobs) == 2, "sent again")
        assert bench.answers == []
        new.answer_all()
        answer = await bench.answered()
        assert (answer.version, _said(answer)) == (2, ["2:a", "2:b"])

    run(scenario)


def test_a_version_that_was_asked_for_is_not_replaced(run) -> None:
    """Pinned to a version that is gone: MODEL_NOT_FOUND, never another version's answer."""

    async def scenario(bench: _Bench) -> None:
        (old,) = await bench.begin()
        bench.submit(b"a", b"b", version=1)
        await _until(lambda: len(old.jobs) == 2, "sent")
        new = bench.engine(version=2)
        await bench.serve({2: [new]}, live=2)
        old.die()
        assert _said(await bench.answered()) == ["MODEL_NOT_FOUND", "MODEL_NOT_FOUND"]
        assert new.seen == []

    run(scenario)


def test_when_the_model_is_gone_its_images_are_answered(run) -> None:
    """The last version was removed while images waited: an error at once, not at the deadline."""

    async def scenario(bench: _Bench) -> None:
        (old,) = await bench.begin()
        bench.submit(b"a")
        await _until(lambda: old.jobs, "sent")
        bench.route({})
        await _until(lambda: not bench.classifier.routes.models, "read")
        old.die()
        assert _said(await bench.answered()) == ["UNAVAILABLE"]

    run(scenario)


def test_an_engine_that_drains_gets_nothing_more(run) -> None:
    """It said so before the table did: new images go elsewhere, its own are answered, then it is hung up on."""

    async def scenario(bench: _Bench) -> None:
        first, second = await bench.begin(2)
        bench.submit(b"a", b"b")
        await _until(lambda: first.jobs and second.jobs, "spread")
        first.drain()
        await _until(lambda: not bench.classifier._fleet._links[first.path].accepting, "heard")
        bench.submit(b"c", b"d")
        await _until(lambda: len(second.jobs) == 3, "sent to the other")
        first.answer_all()
        await _until(lambda: first.hung_up, "hung up")
        bench.route({1: [second]})
        second.answer_all()
        await bench.answered(2)

    run(scenario)


def test_the_classifier_outlives_a_table_that_is_missing(run) -> None:
    """The supervisor is gone and its file with it: the last table stays in force."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        bench.routes_path.unlink()
        await asyncio.sleep(0.02)  # ten looks at nothing; being right does not depend on it
        bench.submit(b"a")
        await _until(lambda: engine.jobs, "sent")
        engine.answer_all()
        assert _said(await bench.answered()) == ["1:a"]

    run(scenario)


def _cached(answer: Answer) -> list[bool]:
    return [result.timing_ms.batch_size == 0 for result in answer.results]


def test_the_same_image_in_flight_is_sent_once(run) -> None:
    """Three calls, one with the image twice: one job at the engine; each place gets a result of its own."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        bench.submit(b"a")
        bench.submit(b"a", b"b", b"a")
        bench.submit(b"a", top_k=2)  # asks for something else
        bench.submit(b"a", bulk=True)  # and an interactive image must not wait for this one
        bench.submit(b"a")
        await _until(lambda: len(engine.jobs) == 4, "sent")
        assert [job.image for job in engine.seen] == [b"a", b"b", b"a", b"a"]
        engine.answer_all()
        await bench.answered(5)
        assert sorted(_said(answer) for answer in bench.answers) == [["1:a"]] * 4 + [["1:a", "1:b", "1:a"]]
        results = [result for answer in bench.answers for result in answer.results]
        assert len({id(result) for result in results}) == 7
        assert sum(not known for answer in bench.answers for known in _cached(answer)) == 4

    run(scenario, cache_bytes=10_000)


def test_an_image_that_comes_again_meets_no_engine(run) -> None:
    """Answers and refusals of the image itself are remembered, each with what was asked; faults are tried again."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        for image, code in ((b"good", ""), (b"bad", "CORRUPT_IMAGE"), (b"fault", "INTERNAL")):
            count = len(bench.answers)
            bench.submit(image)
            await _until(lambda: engine.jobs, "sent")
            (number,) = engine.jobs
            engine.answer(number, code)
            await bench.answered(count + 1)
            bench.submit(image)
            if code == "INTERNAL":
                await _until(lambda: engine.jobs, "sent again")
                engine.answer_all()
            again = await bench.answered(count + 2)
            expected = {"": "1:good", "CORRUPT_IMAGE": code, "INTERNAL": "1:fault"}[code]
            assert _said(again) == [expected]
        assert [job.image for job in engine.seen] == [b"good", b"bad", b"fault", b"fault"]
        bench.submit(b"good", probe=True)  # asks the engine, not the memory
        await _until(lambda: engine.jobs, "probed")
        engine.answer_all()
        await bench.answered(7)
        assert bench.classifier.in_flight == 0

    run(scenario, cache_bytes=10_000)


def test_answers_go_with_their_version(run) -> None:
    """The new version is asked again; when the old number comes back, so is that."""

    async def scenario(bench: _Bench) -> None:
        said = []
        for version in (1, 2, 1):
            engine = bench.engine(version)
            await bench.serve({version: [engine]}, version)
            for _ in range(2):
                bench.submit(b"a")
                if not said or said[-1] != len(engine.seen):
                    await _until(lambda engine=engine: engine.jobs or len(engine.seen), "sent")
                    engine.answer_all()
                await bench.answered(len(bench.answers) or 1)
                await _until(lambda: bench.classifier.in_flight == 0, "answered")
            said.append(len(engine.seen))
            engine.die()
            bench.route({version: []}, version)
            await _until(lambda: not bench.classifier._fleet._links, "gone")
        assert said == [1, 1, 1]
        assert [_said(answer) for answer in bench.answers] == [["1:a"], ["1:a"], ["2:a"], ["2:a"], ["1:a"], ["1:a"]]

    run(scenario, cache_bytes=10_000)


def test_who_gives_up_does_not_take_the_others_answer_along(run) -> None:
    """The one whose image was sent cancels, the next is too late: the engine is not told, the third answered."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        first = bench.submit(b"a")
        bench.submit(b"a", timeout_s=0.05)
        bench.submit(b"a")
        last = bench.submit(b"a")
        await _until(lambda: engine.jobs, "sent")
        first.cancel()
        assert _said(await bench.answered(1)) == ["DEADLINE_EXCEEDED"]
        last.cancel()
        assert engine.cancelled == []
        engine.answer_all()
        assert _said(await bench.answered(2)) == ["1:a"]
        assert len(engine.seen) == 1

    run(scenario, cache_bytes=10_000)


def test_the_last_who_gives_up_takes_the_image_back(run) -> None:
    """When nobody waits any more the engine is told."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        calls = [bench.submit(b"a", b"a") for _ in range(3)]
        await _until(lambda: engine.jobs, "sent")
        (number,) = engine.jobs
        for call in calls:
            call.cancel()
        await _until(lambda: engine.cancelled, "told")
        assert engine.cancelled == [number]
        assert bench.classifier._sharing._leaders == {}

    run(scenario, cache_bytes=10_000)


def test_an_engine_that_keeps_the_first_one_s_deadline_is_asked_again(run) -> None:
    """It dropped the image at the deadline of a call that has ended; who took its place has more time."""

    async def scenario(bench: _Bench) -> None:
        (engine,) = await bench.begin()
        bench.submit(b"a", timeout_s=0.05)
        bench.submit(b"a")
        await _until(lambda: engine.jobs, "sent")
        assert _said(await bench.answered(1)) == ["DEADLINE_EXCEEDED"]
        (number,) = engine.jobs
        engine.answer(number, "DEADLINE_EXCEEDED")
        await _until(lambda: engine.jobs, "sent again")
        engine.answer_all()
        assert _said(await bench.answered(2)) == ["1:a"]

    run(scenario, cache_bytes=10_000)


def test_who_waits_for_an_engine_is_replaced_where_it_waits(run) -> None:
    """No engine yet, and the first gives up: the next one's image is sent when there is one."""

    async def scenario(bench: _Bench) -> None:
        bench.route({1: []})
        await _until(lambda: bench.classifier.routes.models, "read")
        first = bench.submit(b"a")
        bench.submit(b"a")
        first.cancel()
        engine = bench.engine()
        bench.route({1: [engine]})
        await _until(lambda: engine.jobs, "sent")
        engine.answer_all()
        assert _said(await bench.answered()) == ["1:a"]

    run(scenario, cache_bytes=10_000)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("cache_bytes", [0, 2000], ids=["no cache", "cache"])
def test_every_call_ends_once_with_its_own_answers_under_random_events(run, seed: int, cache_bytes: int) -> None:
    """Calls, cancellations, answers, deaths, drains and new versions in any order.

    Every call that was not cancelled is answered exactly once; every result is of the image in its place and of the
    version that the answer names, unless it is an error that the schedule allows; afterwards nothing is in flight.
    """
    chance = random.Random(seed)

    async def scenario(bench: _Bench) -> None:  # noqa: PLR0912 - one branch per kind of event
        live, next_image = 1, 0
        listed = [bench.engine(1) for _ in range(2)]
        await bench.serve({1: listed})
        asked: dict[int, list[bytes]] = {}
        heard: dict[int, list[Answer]] = {}
        cancelled: set[int] = set()
        calls: dict[int, Call] = {}
        leaving: list[_Engine] = []

        def act_on_an_engine() -> None:
            engine = chance.choice(listed)
            job = next(iter(engine.jobs.items()), None)
            what = chance.random()
            if job and what < 0.8:
                engine.answer(job[0])
            elif job and job[1].flags & SOLO and what < 0.9:
                engine.announce(job[0])

        for step in range(150):
            event = chance.random()
            if event < 0.35:
                images = [f"{next_image + one}".encode() for one in range(chance.randrange(1, 4))]
                if cache_bytes:  # from few images, so that many come twice
                    images = [str(chance.randrange(12)).encode() for _ in images]
                next_image += len(images)
                asked[step], heard[step] = images, []
                request = Request(images, timeout_s=chance.choice([_DEADLINE_S, _DEADLINE_S, 0.01]))
                try:
                    calls[step] = bench.classifier.submit(request, heard[step].append)
                except Overloaded:
                    del asked[step]
            elif event < 0.40 and calls:
                step_of = chance.choice(list(calls))
                if not heard[step_of]:
                    calls[step_of].cancel()
                    cancelled.add(step_of)
            elif event < 0.44:
                victim = listed.pop(chance.randrange(len(listed)))
                listed.append(bench.engine(live))
                bench.route({live: listed}, live)
                victim.die()
            elif event < 0.47:
                live += 1
                leaving += listed
                listed = [bench.engine(live) for _ in range(2)]
                bench.route({live: listed}, live)
            elif event < 0.50 and leaving:
                leaving.pop(chance.randrange(len(leaving))).die()
            else:
                act_on_an_engine()
            if chance.random() < 0.5:
                await asyncio.sleep(0.001)
        end = time.monotonic() + _DEADLINE_S
        while bench.classifier.in_flight:
            assert time.monotonic() < end, "a call never ends"
            for engine in (*listed, *leaving):
                engine.answer_all()
            await asyncio.sleep(0.001)
        for step, images in asked.items():
            if step in cancelled:
                assert heard[step] == []
                continue
            (answer,) = heard[step]
            for image, said in zip(images, _said(answer), strict=True):
                assert said in {f"{answer.version}:{image.decode()}", "DEADLINE_EXCEEDED", "POISON_IMAGE"}
        assert sum(said[0].isdigit() for answers in heard.values() for one in answers for said in _said(one)) > 20

    run(scenario, max_queue=40, cache_bytes=cache_bytes)


def test_the_memory_of_poison_is_limited(run, monkeypatch) -> None:
    """Only the latest are remembered, as digests, so that nobody can fill the memory with them."""
    monkeypatch.setattr("service.classifier._DEATHS_REMEMBERED", 1)

    async def scenario(bench: _Bench) -> None:
        bench.route({1: []})
        await _until(lambda: bench.classifier.routes.models, "read")
        for image in (b"bad one", b"bad two"):
            bench.submit(image)
            for alone in (False, True, True):
                engine = bench.engine()
                bench.route({1: [engine]})
                await _until(lambda engine=engine: engine.jobs, "sent")
                (number,) = engine.jobs
                if alone:
                    engine.announce(number)
                    await _until(lambda number=number, engine=engine: _running(bench, engine, number), "announced")
                bench.route({1: []})
                engine.die()
            await _until(lambda: bench.answers and bench.classifier.in_flight == 0, "poison")
        assert bench.classifier._deaths == {hashlib.sha256(b"bad two").digest(): 2}
        assert [_said(answer) for answer in bench.answers] == [["POISON_IMAGE"], ["POISON_IMAGE"]]

    run(scenario)
