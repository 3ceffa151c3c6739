"""ClassifyStream: many requests on one call, answered as they finish, and never more held than a window."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from protos.classifier_pb2 import (
    ClassifyRequest,
    ClassifyResponse,
    ClassifyStreamRequest,
    ClassifyStreamResponse,
    Image,
    Result,
)
from protos.classifier_pb2_grpc import ImageClassifierStub
from service.errors import GraftError, Overloaded, Unavailable
from service.grpc.stream import WINDOW_IMAGES, Stream
from tests.conftest import VersionFactory
from tests.pictures import COLOURS, plain
from tests.running import Service, eventually

_DEADLINE_S = 60.0


def _ask(number: int, *images: bytes, **fields: object) -> ClassifyStreamRequest:
    request = ClassifyRequest(images=[Image(data=data) for data in images], **fields)
    return ClassifyStreamRequest(id=number, request=request)


# -- a running service


def test_every_request_is_answered_under_its_id(stub: ImageClassifierStub) -> None:
    """Hundreds of requests, several windows: each answered once, with its own labels."""
    colours = [list(COLOURS)[number % 4] for number in range(300)]
    asked = (_ask(number, plain(colour), plain("grey")) for number, colour in enumerate(colours))
    answers = {one.id: one.response for one in stub.ClassifyStream(asked, timeout=_DEADLINE_S)}
    assert sorted(answers) == list(range(300))
    assert [[result.label for result in answers[n].results] for n in range(300)] == [[c, "grey"] for c in colours]
    assert {(one.model, one.version) for one in answers.values()} == {("pets", 1)}


def test_what_fails_never_ends_the_stream(stub: ImageClassifierStub) -> None:
    """Bad images, an unknown version, too many images, none at all: each its own error, between answers."""
    asked = [
        _ask(1, plain("red")),
        _ask(2, b"text"),
        _ask(3, plain("red"), b"", plain("blue")),
        _ask(4, plain("red"), version=9),
        _ask(5, *[plain("red")] * 21),
        _ask(6),
        ClassifyStreamRequest(id=7),
        _ask(8, plain("red"), top_k=-1),
        _ask(-9, plain("green")),
    ]
    answers = {one.id: one for one in stub.ClassifyStream(iter(asked), timeout=_DEADLINE_S)}
    said = {
        number: one.error.code or [result.label or result.error.code for result in one.response.results]
        for number, one in answers.items()
    }
    assert said == {
        1: ["red"],
        2: ["UNSUPPORTED_FORMAT"],
        3: ["red", "EMPTY_IMAGE", "blue"],
        4: "MODEL_NOT_FOUND",
        5: "INVALID_REQUEST",
        6: "INVALID_REQUEST",
        7: "INVALID_REQUEST",
        8: "INVALID_REQUEST",
        -9: ["green"],
    }
    assert "expected 1 to 20 images" in answers[5].error.detail


def test_answers_come_while_the_client_still_sends(stub: ImageClassifierStub) -> None:
    """A conversation: each request is sent only after the answer to the one before."""
    answered: queue.Queue[int] = queue.Queue()

    def asks() -> Iterator[ClassifyStreamRequest]:
        for number in range(5):
            if number:
                assert answered.get(timeout=_DEADLINE_S) == number - 1
            yield _ask(number, plain("red"))

    for one in stub.ClassifyStream(asks(), timeout=_DEADLINE_S):
        answered.put(one.id)
    assert answered.get_nowait() == 4


def test_whole_batches_reach_the_engines(stub: ImageClassifierStub) -> None:
    """Requests of one image each share inferences, as they are read ahead."""
    answers = list(stub.ClassifyStream((_ask(n, plain("red")) for n in range(200)), timeout=_DEADLINE_S))
    sizes = [one.response.results[0].timing_ms.batch_size for one in answers]
    assert max(sizes) > 1


def test_a_client_that_does_not_read_is_not_read_either(stub: ImageClassifierStub) -> None:
    """It gets to send what fits into the window and gRPC's buffers, far less than all; then it reads, and gets all."""
    total, sent = 300, 0

    def asks() -> Iterator[ClassifyStreamRequest]:
        nonlocal sent
        for number in range(total):
            sent = number + 1
            # the name comes back: the answers are large, too
            image = Image(data=plain("red"), filename="x" * 200_000)
            yield ClassifyStreamRequest(id=number, request=ClassifyRequest(images=[image]))

    call = stub.ClassifyStream(asks(), timeout=_DEADLINE_S)
    first = next(call).id
    resting = threading.Event()
    seen: list[int] = []

    def stands_still() -> bool:
        resting.wait(0.2)  # not to be right, but to see whether anything moves
        seen.append(sent)
        return seen[-3:] == [sent] * 3

    eventually(stands_still, "no more is sent")
    assert sent < total * 0.8
    assert sorted([first, *(one.id for one in call)]) == list(range(total))


def test_a_client_that_goes_away_leaves_nothing_behind(service: Service, stub: ImageClassifierStub) -> None:
    """Ten streams are dropped half read: the same processes answer on, nothing stays in flight, no trace in the log."""
    before, log = (service.fronts(), service.engines()), service.log()
    for _ in range(10):
        call = stub.ClassifyStream((_ask(n, plain("red"), plain("blue")) for n in range(200)), timeout=_DEADLINE_S)
        next(call)
        call.cancel()
    eventually(lambda: b"\ngraft_requests_in_flight 0.0" in service.get("/metrics").body, "nothing in flight")
    assert (service.fronts(), service.engines()) == before
    assert "Traceback" not in service.log().removeprefix(log)


def test_a_stream_is_answered_and_ended_when_the_service_ends(
    version_factory: VersionFactory, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """SIGTERM with an open stream: what was read is answered, then UNAVAILABLE, long before the drain's time is up."""
    version_factory(tmp_path / "models")
    service = start_service(tmp_path / "models", drain_timeout_s=300)
    more = threading.Event()

    def asks() -> Iterator[ClassifyStreamRequest]:
        for number in range(20):
            yield _ask(number, plain("red"))
        more.wait(_DEADLINE_S)

    with grpc.insecure_channel(service.grpc) as channel:
        call = ImageClassifierStub(channel).ClassifyStream(asks())
        answers = [next(call).id for _ in range(20)]
        assert service.terminate() == 0
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        more.set()
    assert sorted(answers) == list(range(20))
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "send again what was not answered" in ended.value.details()


def test_a_message_that_is_none_ends_the_stream(service: Service) -> None:
    """What came before it is answered; the error is ours, with its code."""
    said = iter([_ask(1, plain("red")).SerializeToString(), b"\xff\xff", _ask(2, plain("red")).SerializeToString()])
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.stream_stream(
            "/graft.v1.ImageClassifier/ClassifyStream", None, ClassifyStreamResponse.FromString
        )(said, timeout=_DEADLINE_S)
        assert next(call).id == 1
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
    assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(ended.value.trailing_metadata())["graft-error-code"] == "INVALID_REQUEST"


# -- the window, exactly


class _Talker:
    """A context whose client always has another request, and takes an answer whenever `takes` is released."""

    def __init__(self, request: ClassifyRequest) -> None:
        self.takes = asyncio.Semaphore(0)
        self.read_count = 0
        self.written: list[ClassifyStreamResponse] = []
        self._request = request

    async def read(self) -> ClassifyStreamRequest:
        await asyncio.sleep(0)
        self.read_count += 1
        return ClassifyStreamRequest(id=self.read_count, request=self._request)

    async def write(self, response: ClassifyStreamResponse) -> None:
        await self.takes.acquire()
        self.written.append(response)


async def _settle() -> None:
    """Lets everything run that can."""
    for _ in range(1000):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("images", "window_bytes", "held"),
    [(1, 10**9, WINDOW_IMAGES), (0, 10**9, WINDOW_IMAGES), (10, 10**9, 7), (100, 10**9, 1), (1, 5000, 5), (1, 1, 1)],
)
def test_the_window_is_never_exceeded(images: int, window_bytes: int, held: int) -> None:
    """By images or by bytes, an empty request counting as one image: one is read for each answer that is taken."""

    async def run() -> None:
        context = _Talker(ClassifyRequest(images=[Image(data=bytes(1000 if window_bytes < 10**9 else 1))] * images))

        async def answer(request: ClassifyRequest) -> ClassifyResponse:
            return ClassifyResponse(results=[Result(label="x")] * len(request.images))

        stream = Stream(context, answer, window_bytes)  # type: ignore[arg-type]
        running = asyncio.create_task(stream.run())
        await _settle()
        assert (context.read_count, len(context.written)) == (held, 0)
        for taken in range(1, 4):
            context.takes.release()
            await _settle()
            assert (context.read_count, len(context.written)) == (held + taken, taken)
        stream.end()
        for _ in range(held):
            context.takes.release()
        with pytest.raises(Unavailable):
            await running
        assert len(context.written) == context.read_count

    asyncio.run(run())


def test_a_request_that_fails_frees_its_place() -> None:
    """Errors count like answers, or a stream of them would stop."""

    async def run() -> None:
        context = _Talker(ClassifyRequest(images=[Image(data=b"a")]))

        async def answer(_: ClassifyRequest) -> ClassifyResponse:
            refusal: GraftError = Overloaded("full")
            raise refusal

        stream = Stream(context, answer, 10**9)  # type: ignore[arg-type]
        running = asyncio.create_task(stream.run())
        for _ in range(200):
            context.takes.release()
        await _settle()
        assert len(context.written) == 200
        assert {(one.error.code, one.error.detail) for one in context.written} == {("OVERLOADED", "full")}
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(run())
