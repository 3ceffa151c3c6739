"""service/engine/loop.py: over real sockets, every image gets its own answer, whatever happens to its neighbours."""

import hashlib
import io
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from protos.classifier_pb2 import Result
from protos.manifest_pb2 import Manifest
from service.backlog import Backlog
from service.engine.loop import EngineLoop
from service.image import ImageSpec, _shape, decode
from service.version import Version
from service.wire import BULK, PIXELS_SHA256, SOLO, WHOLE_HOST, FrameReader, Kind, classify_header, frame

_SPEC = ImageSpec(8)
_DEADLINE_S = 20.0
_LABELS = ("r", "g", "b", "one")
_FAILS, _NAN = 255, 254
"""Values of the red channel at which the fake model fails, or gives NaN."""


def _image(red: int, green: int = 0, blue: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (red, green, blue)).save(stream, "PNG")
    return stream.getvalue()


class _Runtime:
    """A model whose scores are the picture's colour, so that an answer says which picture it is for."""

    name = "fake/f32"
    max_batch = 4
    host_threads = 2

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int, int]]] = []
        self.on_whole_host: list[tuple[int, int, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def predict(self, pixels: np.ndarray, *, whole_host: bool = False) -> np.ndarray:
        colours = [tuple(int(value) for value in image[0, 0]) for image in pixels]
        self.batches.append(colours)
        self.on_whole_host += colours if whole_host else []
        self.entered.release()
        assert self.gate.wait(_DEADLINE_S)
        if any(colour[0] == _FAILS for colour in colours):
            raise RuntimeError("this image is too much for the model")
        scores = np.array([[*colour, 256] for colour in colours], np.float32) / 256
        scores[[colour[0] == _NAN for colour in colours], 1] = np.nan
        return scores

    @property
    def seen(self) -> set[tuple[int, int, int]]:
        """Every picture that reached the model."""
        return {colour for batch in self.batches for colour in batch}


class _Front:
    """One connection to the loop."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_DEADLINE_S)
        self.socket.connect(str(path))
        self.frames: list[tuple[Kind, int, bytes]] = []
        self._reader = FrameReader()

    def ask(self, number: int, image: bytes, *, seconds: float = 60.0, flags: int = 0, top_k: int = 4) -> None:
        self.socket.sendall(classify(number, image, seconds=seconds, flags=flags, top_k=top_k))

    def cancel(self, number: int) -> None:
        self.socket.sendall(frame(Kind.CANCEL, number))

    def until(self, holds: Callable[[], bool]) -> None:
        """Reads on until it holds."""
        while not holds():
            chunk = self.socket.recv(1 << 16)
            assert chunk, "the engine hung up"
            self.frames += [one for one in self._reader.feed(chunk) if one[0] is not Kind.SLOT]

    def hear(self, count: int) -> dict[int, Result]:
        """Waits until there are `count` results in all."""
        self.until(lambda: len(self.results()) >= count)
        return dict(self.results())

    def results(self) -> list[tuple[int, Result]]:
        return [(number, Result.FromString(body)) for kind, number, body in self.frames if kind is Kind.RESULT]


def classify(number: int, image: bytes, *, seconds: float = 60.0, flags: int = 0, top_k: int = 4) -> bytes:
    """A whole CLASSIFY frame."""
    now = time.monotonic()
    return classify_header(number, now, now + seconds, top_k, flags, len(image)) + image


def _colour(result: Result) -> tuple[int, int, int]:
    """The picture that an answer is for."""
    assert not result.HasField("error"), result.error
    scores = {one.label: one.score for one in result.top}
    return tuple(round(scores[label] * 256) for label in "rgb")


class _Engine:
    """The loop in a thread."""

    def __init__(self, path: Path, target_s: float = math.inf, **manifest: object) -> None:
        self.path = path
        self.runtime = _Runtime()
        self.fronts: list[_Front] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        version = Version(path.parent, Manifest(**({"class_names": _LABELS} | manifest)), _SPEC)
        self.loop = EngineLoop(listener, version, self.runtime, max_pixels=10_000, target_s=target_s)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def front(self) -> _Front:
        self.fronts.append(_Front(self.path))
        return self.fronts[-1]

    def hold(self, front: _Front) -> None:
        """Keeps the model busy with a job of its own (number 0) until `release`."""
        self.runtime.gate.clear()
        front.ask(0, _image(0))
        assert self.runtime.entered.acquire(timeout=_DEADLINE_S)

    def release(self) -> None:
        self.runtime.gate.set()

    def close(self) -> None:
        self.release()
        if self.thread.is_alive():
            self.loop.drain()
        for front in self.fronts:
            front.socket.close()
        self.thread.join(_DEADLINE_S)
        assert not self.thread.is_alive(), "the loop did not end after its fronts had hung up"
        self.loop._selector.close()
        self.loop._backlog.close()
        self.loop._wake_reader.close()
        self.loop._wake_writer.close()


@pytest.fixture
def start_engine(tmp_path) -> Iterator[Callable[..., _Engine]]:
    """Starts loops; each must end when it is drained and its fronts have hung up."""
    engines: list[_Engine] = []

    def begin(**manifest: object) -> _Engine:
        engines.append(_Engine(tmp_path / f"{len(engines)}.sock", **manifest))
        return engines[-1]

    yield begin
    for one in engines:
        one.close()


@pytest.fixture
def engine(start_engine):
    """One loop."""
    return start_engine()


def test_an_answer_holds_labels_best_first_and_timing(engine: _Engine) -> None:
    """The best top_k labels in order, the first of them as label and score, and the time in each stage."""
    front = engine.front()
    front.ask(7, _image(40, 90, 60), top_k=3)
    result = front.hear(1)[7]
    assert [one.label for one in result.top] == ["one", "g", "b"]
    assert (result.label, result.score) == ("one", 1.0)
    assert result.timing_ms.batch_size == 1
    assert min(result.timing_ms.queue, result.timing_ms.decode, result.timing_ms.inference) > 0
    assert result.pixels_sha256 == ""


@pytest.mark.parametrize(("top_k", "expected"), [(0, 1), (1, 1), (4, 4), (65535, 4)])
def test_top_k_is_at_least_one_and_at_most_all(engine: _Engine, top_k: int, expected: int) -> None:
    """More labels than there are is all of them."""
    front = engine.front()
    front.ask(1, _image(1), top_k=top_k)
    assert len(front.hear(1)[1].top) == expected


def test_an_answer_below_the_threshold_is_unknown(start_engine) -> None:
    """The threshold itself is known; the best label is given all the same."""
    for threshold, unknown in ((1.0, False), (1.0001, True)):
        front = start_engine(unknown_threshold=threshold).front()
        front.ask(1, _image(1))
        result = front.hear(1)[1]
        assert (result.unknown, result.label) == (unknown, "one")


def test_the_digest_is_of_the_pixels_that_the_model_saw(engine: _Engine) -> None:
    """Asked for, the SHA-256 of the decoded pixels comes back."""
    front, image = engine.front(), _image(9, 8, 7)
    front.ask(1, image, flags=PIXELS_SHA256)
    assert front.hear(1)[1].pixels_sha256 == hashlib.sha256(decode(image, _SPEC).tobytes()).hexdigest()


def test_what_arrives_while_the_model_runs_is_the_next_batch(engine: _Engine) -> None:
    """Five jobs that wait become a batch of four, the most there may be, and one of one; in order of arrival."""
    front = engine.front()
    engine.hold(front)
    for number in range(1, 6):
        front.ask(number, _image(number))
    held_s = 0.1
    time.sleep(held_s)
    engine.release()
    results = front.hear(6)
    assert engine.runtime.batches == [[(0, 0, 0)], [(n, 0, 0) for n in (1, 2, 3, 4)], [(5, 0, 0)]]
    assert [results[number].timing_ms.batch_size for number in (1, 4, 5)] == [4, 4, 1]
    assert results[1].timing_ms.queue >= held_s * 1e3  # also while nobody had read it


def test_an_image_that_has_the_host_to_itself_gets_all_of_it(start_engine) -> None:
    """Unless another has come meanwhile."""
    engine = start_engine()
    front = engine.front()
    front.ask(1, _image(1), flags=WHOLE_HOST)
    front.hear(1)
    assert engine.runtime.on_whole_host == [(1, 0, 0)]
    assert engine.runtime.entered.acquire(timeout=_DEADLINE_S)
    engine.hold(front)
    for number in (2, 3):
        front.ask(number, _image(number), flags=WHOLE_HOST)
    front.ask(4, _image(4), flags=WHOLE_HOST | SOLO)
    front.ask(5, _image(5), flags=WHOLE_HOST)
    time.sleep(0.1)
    engine.release()
    front.hear(6)
    assert engine.runtime.batches[2:] == [[(2, 0, 0), (3, 0, 0)], [(4, 0, 0)], [(5, 0, 0)]]
    assert engine.runtime.on_whole_host[1:] == [(5, 0, 0)]


def test_what_had_the_host_to_itself_teaches_what_it_would_take_on_one_thread_at_most(start_engine) -> None:
    """So an engine that knows nothing learns something, and one that was slow once; it never counts as slower."""
    engine = start_engine(target_s=1e-9)  # so that what is published is the cost of one
    front, backlog = engine.front(), Backlog(str(engine.path))

    def ask(number: int, flags: int, held_s: float) -> float:
        """What an image is said to cost after this one; the answer is sent before anything is learned."""
        engine.runtime.gate.clear()
        front.ask(number, _image(number), flags=flags)
        assert engine.runtime.entered.acquire(timeout=_DEADLINE_S)
        time.sleep(held_s)
        engine.release()
        front.hear(number)
        front.ask(number + 1, _image(number), flags=WHOLE_HOST | SOLO)  # which teaches nothing
        front.hear(number + 1)
        assert engine.runtime.entered.acquire(timeout=_DEADLINE_S)
        return backlog.image_s

    first = ask(1, WHOLE_HOST, 0.1)
    assert first >= 2 * 0.1
    assert ask(3, WHOLE_HOST, first) == first
    less = ask(5, WHOLE_HOST, 0.0)
    assert less < first
    assert ask(7, 0, 2 * less) > less
    backlog.close()


def test_an_image_that_the_model_fails_on_hurts_only_itself(engine: _Engine) -> None:
    """The batch fails as a whole and is run again one by one: three answers and one error."""
    front = engine.front()
    engine.hold(front)
    for number, red in enumerate([10, _FAILS, 30, 40], start=1):
        front.ask(number, _image(red))
    engine.release()
    results = front.hear(5)
    assert [_colour(results[number])[0] for number in (1, 3, 4)] == [10, 30, 40]
    assert (results[2].error.code, results[2].error.detail) == ("INTERNAL", "the model failed on this image")
    assert [len(batch) for batch in engine.runtime.batches] == [1, 4, 1, 1, 1, 1]


def test_a_score_that_is_not_a_number_hurts_only_its_image(engine: _Engine) -> None:
    """NaN is an error of ours, never a label; the batch is not run again for it."""
    front = engine.front()
    engine.hold(front)
    for number, red in enumerate([10, _NAN, 30], start=1):
        front.ask(number, _image(red))
    engine.release()
    results = front.hear(4)
    assert [_colour(results[number])[0] for number in (1, 3)] == [10, 30]
    assert results[2].error.code == "INTERNAL"
    assert results[2].label == ""
    assert [len(batch) for batch in engine.runtime.batches] == [1, 3]


def test_an_image_that_cannot_be_decoded_hurts_only_itself(engine: _Engine) -> None:
    """Damaged, too large or no image at all: its neighbours share the batch without it."""
    front = engine.front()
    engine.hold(front)
    stream = io.BytesIO()
    Image.new("L", (101, 100)).save(stream, "PNG")
    for number, image in enumerate([_image(10), b"text", _image(20)[:40], stream.getvalue(), _image(50)], start=1):
        front.ask(number, image)
    engine.release()
    results = front.hear(6)
    assert [_colour(results[number])[0] for number in (1, 5)] == [10, 50]
    assert [results[n].error.code for n in (2, 3, 4)] == ["UNSUPPORTED_FORMAT", "CORRUPT_IMAGE", "IMAGE_TOO_LARGE"]
    assert [len(batch) for batch in engine.runtime.batches] == [1, 1, 1]


def test_a_decoder_that_fails_in_an_unforeseen_way_hurts_only_its_image(engine: _Engine, monkeypatch, caplog) -> None:
    """Even an error that is none of ours is answered, and logged, and the rest goes on."""

    def broken(image, *arguments):
        if image == b"bomb":
            raise RuntimeError("boom /secret/path")
        return decode(image, *arguments)

    monkeypatch.setattr("service.engine.loop.decode", broken)
    front = engine.front()
    engine.hold(front)
    front.ask(1, b"bomb")
    front.ask(2, _image(20))
    engine.release()
    results = front.hear(3)
    assert (results[1].error.code, results[1].error.detail) == ("INTERNAL", "the image could not be decoded")
    assert _colour(results[2]) == (20, 0, 0)
    assert "boom" in caplog.text


def test_a_picture_that_memory_does_not_suffice_for_hurts_only_itself(engine: _Engine, monkeypatch) -> None:
    """It is said to be too large; its neighbours share the batch without it."""

    def greedy(picture, spec):
        if picture.getpixel((0, 0))[0] == 20:
            raise MemoryError
        return _shape(picture, spec)

    monkeypatch.setattr("service.image._shape", greedy)
    front = engine.front()
    engine.hold(front)
    for number in (1, 2, 3):
        front.ask(number, _image(10 * number))
    engine.release()
    results = front.hear(4)
    assert [_colour(results[number])[0] for number in (1, 3)] == [10, 30]
    assert results[2].error.code == "IMAGE_TOO_LARGE"
    assert [len(batch) for batch in engine.runtime.batches] == [1, 2]


def test_an_expired_job_never_reaches_the_model(engine: _Engine) -> None:
    """Its deadline passed: it is answered as late, without having been computed; its neighbours are."""
    front = engine.front()
    engine.hold(front)
    front.ask(1, _image(10), seconds=-0.001)
    front.ask(2, _image(20))
    engine.release()
    results = front.hear(3)
    assert results[1].error.code == "DEADLINE_EXCEEDED"
    assert _colour(results[2]) == (20, 0, 0)
    assert (10, 0, 0) not in engine.runtime.seen


def test_a_job_that_expires_while_its_neighbours_are_decoded_never_reaches_the_model(start_engine, monkeypatch) -> None:
    """Its deadline passes behind or before its own decode: answered as late, and the model does not see it."""
    engine = start_engine()
    front = engine.front()
    slow = threading.Event()

    def decode_slowly(image, *arguments):
        if image == _image(10):
            slow.set()
            time.sleep(0.4)  # longer than the deadlines of the two below, however slow the machine is
        return decode(image, *arguments)

    monkeypatch.setattr("service.engine.loop.decode", decode_slowly)
    engine.hold(front)
    front.ask(1, _image(20), seconds=0.3)  # decoded in time, late for the model
    front.ask(2, _image(10))
    front.ask(3, _image(30), seconds=0.3)
    engine.release()
    results = front.hear(4)
    assert _colour(results[2]) == (10, 0, 0)
    assert {results[number].error.code for number in (1, 3)} == {"DEADLINE_EXCEEDED"}
    assert engine.runtime.seen == {(0, 0, 0), (10, 0, 0)}


def test_bulk_waits_for_everybody_else(engine: _Engine) -> None:
    """Interactive jobs that came later run first, and bulk never shares a batch with them."""
    front = engine.front()
    engine.hold(front)
    for number in range(1, 6):
        front.ask(number, _image(number), flags=BULK)
    for number in range(6, 11):
        front.ask(number, _image(number))
    engine.release()
    front.hear(11)
    reds = [[red for red, _, _ in batch] for batch in engine.runtime.batches]
    assert reds == [[0], [6, 7, 8, 9], [10], [1, 2, 3, 4], [5]]


def test_an_interactive_job_is_seen_behind_much_bulk(engine: _Engine) -> None:
    """Whatever lies in the socket is read before a batch is taken, so bulk that came before delays nobody."""
    front = engine.front()
    front.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    engine.hold(front)
    for number in range(1, 6):
        front.ask(number, _image(number) + bytes(30_000), flags=BULK)
    front.ask(6, _image(6))
    engine.release()
    front.hear(7)
    reds = [[red for red, _, _ in batch] for batch in engine.runtime.batches]
    assert reds == [[0], [6], [1, 2, 3, 4], [5]]


def test_the_backlog_says_what_an_image_costs_and_forgets_a_front_that_left(start_engine) -> None:
    """A front is given a slot, what it counts there is seen by all, and its end clears it."""
    engine = start_engine()
    front, seen = engine.front(), Backlog(str(engine.path))
    assert seen.image_s == 0.0
    reader, slots = FrameReader(), []
    while not slots:
        slots += reader.feed(front.socket.recv(1000))
    kind, slot, _ = slots[0]
    assert (kind, slot > 0) == (Kind.SLOT, True)
    mine = Backlog(str(engine.path))
    mine.use(slot)
    mine.add(3, bulk=False)
    mine.add(2, bulk=True)
    assert seen.in_flight() == (3.0, 2.0)
    front.ask(1, _image(1))
    front.hear(1)
    front.socket.close()
    other = engine.front()
    other.ask(1, _image(1))
    other.hear(1)
    assert 0.0 < seen.image_s <= seen.batch_s < _DEADLINE_S
    while seen.in_flight() != (0.0, 0.0):  # the hang-up may be read behind the other's first job
        other.ask(len(other.results()) + 1, _image(1))
        other.hear(len(other.results()) + 1)
    for one in (seen, mine):
        one.close()


@pytest.mark.parametrize(
    ("target_s", "expected"), [(math.inf, [[0], [1, 2, 3, 4], [5]]), (1e-9, [[n] for n in range(6)])]
)
def test_batches_are_sized_by_the_target(start_engine, target_s: float, expected: list[list[int]]) -> None:
    """With time enough batches are as large as pays; when no batch is quick enough, one image at a time."""
    engine = start_engine(target_s=target_s)
    front = engine.front()
    front.ask(0, _image(0))
    front.hear(1)
    assert engine.runtime.entered.acquire(timeout=_DEADLINE_S)
    engine.runtime.batches.clear()
    engine.hold(front)
    for number in range(1, 6):
        front.ask(number, _image(number))
    engine.release()
    front.hear(7)
    assert [[red for red, _, _ in batch] for batch in engine.runtime.batches] == expected


def test_an_engine_that_is_too_slow_for_its_deadlines_finds_out(start_engine, monkeypatch) -> None:
    """It was fast when it learned what images cost. Then all of its jobs expire, and it learns from them, too."""
    engine = start_engine()
    front, seen = engine.front(), Backlog(str(engine.path))
    front.ask(1, _image(10))
    front.hear(1)
    front.ask(2, _image(10))
    front.hear(2)
    assert seen.image_s > 0.0
    deadline_s = seen.image_s + 0.05

    def decode_slowly(*arguments):
        time.sleep(2 * deadline_s)  # it is slow: nothing waits for this
        return decode(*arguments)

    monkeypatch.setattr("service.engine.loop.decode", decode_slowly)
    for number in range(3, 9):
        front.ask(number, _image(number), seconds=deadline_s)
        assert front.hear(number)[number].error.code == "DEADLINE_EXCEEDED"
    assert seen.image_s > deadline_s


def test_a_cancelled_job_never_reaches_the_model(engine: _Engine) -> None:
    """Nobody waits for it: it is neither computed nor answered. Cancelling what is gone or never was is harmless."""
    front = engine.front()
    engine.hold(front)
    front.ask(1, _image(10))
    front.ask(2, _image(20))
    for number in (1, 0, 99):
        front.cancel(number)
    front.ask(3, _image(30))
    engine.release()
    assert sorted(front.hear(3)) == [0, 2, 3]
    assert engine.runtime.seen == {(0, 0, 0), (20, 0, 0), (30, 0, 0)}


def test_jobs_of_a_front_that_hung_up_are_forgotten(engine: _Engine) -> None:
    """But for the one batch that was taken before the end of the stream was read, none of its jobs is computed.

    Jobs of other fronts with the same numbers stay.
    """
    stays, goes = engine.front(), engine.front()
    engine.hold(stays)
    for number in range(1, 21):
        goes.ask(number, _image(100))
        stays.ask(number, _image(number))
    goes.socket.close()
    engine.release()
    stays.hear(21)
    stays.ask(21, _image(21))  # behind everything that was sent before
    results = stays.hear(22)
    assert [_colour(results[number])[0] for number in range(1, 22)] == list(range(1, 22))
    computed = sum(batch.count((100, 0, 0)) for batch in engine.runtime.batches)
    assert computed <= engine.runtime.max_batch


def test_a_solo_job_is_announced_and_runs_alone(engine: _Engine) -> None:
    """RUNNING comes before the job runs, so that a front knows whose fault it is when the engine dies now."""
    front = engine.front()
    engine.hold(front)
    front.ask(1, _image(10))
    front.ask(2, _image(20), flags=SOLO)
    front.ask(3, _image(30))
    engine.release()
    front.hear(4)
    assert engine.runtime.batches == [[(0, 0, 0)], [(10, 0, 0)], [(20, 0, 0)], [(30, 0, 0)]]
    order = [(kind, number) for kind, number, _ in front.frames]
    assert [number for kind, number in order if kind is Kind.RUNNING] == [2]
    assert order.index((Kind.RUNNING, 2)) < order.index((Kind.RESULT, 2))


def test_running_is_heard_before_the_model_has_answered(engine: _Engine) -> None:
    """The announcement is out before the model starts: it is there while the model still works."""
    front = engine.front()
    engine.runtime.gate.clear()
    front.ask(1, _image(10), flags=SOLO)
    front.until(lambda: bool(front.frames))
    assert front.frames[0][:2] == (Kind.RUNNING, 1)
    engine.release()
    front.hear(1)


def test_a_front_that_does_not_read_holds_up_nobody(start_engine) -> None:
    """Megabytes of answers wait for a slow front; another is answered meanwhile; the slow one gets all of its own."""
    engine = start_engine(class_names=["x" * 20_000, "y" * 20_000, "b", "one"])
    slow, quick = engine.front(), engine.front()
    for number in range(60):
        slow.ask(number, _image(number))
    for number in range(5):
        quick.ask(number, _image(number))
        quick.hear(number + 1)
    assert sorted(slow.hear(60)) == list(range(60))


def test_drain_answers_everyone_and_ends(engine: _Engine) -> None:
    """What was sent is answered, every front is told, no new front gets in, and the loop ends when all have gone."""
    fronts = [engine.front(), engine.front()]
    engine.hold(fronts[0])
    for front in fronts:
        for number in range(1, 7):
            front.ask(number, _image(number, 100 + engine.fronts.index(front)))
    engine.loop.drain()
    engine.release()
    for place, front in enumerate(fronts):
        results = front.hear(7 - place)
        assert [_colour(results[number]) for number in range(1, 7)] == [(n, 100 + place, 0) for n in range(1, 7)]
        front.until(lambda front=front: (Kind.DRAINING, 0, b"") in front.frames)
    fronts[0].ask(8, _image(80))  # on its way while the front had not yet heard
    assert _colour(fronts[0].hear(8)[8]) == (80, 0, 0)
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as late:
        late.connect(str(engine.path))
    assert engine.thread.is_alive()
    for front in fronts:
        front.socket.close()
    engine.thread.join(_DEADLINE_S)
    assert not engine.thread.is_alive()


def test_drain_with_nobody_there_ends_at_once(engine: _Engine) -> None:
    """Idle and without fronts: nothing to wait for."""
    engine.loop.drain()
    engine.thread.join(_DEADLINE_S)
    assert not engine.thread.is_alive()


@pytest.mark.parametrize("seed", range(12))
def test_answers_are_never_lost_doubled_or_swapped(engine: _Engine, seed: int) -> None:
    """Three fronts with the same job numbers send good, bad, failing, late, solo and cancelled jobs in any order.

    Each front hears exactly one result for each of its numbers, of its own picture; of a cancelled one at most one.
    """
    chance = random.Random(seed)
    fronts = [engine.front() for _ in range(3)]
    expected: list[dict[int, object]] = [{} for _ in fronts]
    cancelled: list[set[int]] = [set() for _ in fronts]
    streams = [bytearray() for _ in fronts]
    late = set()
    for place in range(3):
        for number in range(40):
            colour = (chance.randrange(200), number, place)
            flags = SOLO if chance.random() < 0.1 else 0
            fate = chance.choices(["good", "text", "fails", "nan", "late", "cancelled"], [12, 1, 1, 1, 1, 2])[0]
            if fate == "fails":
                colour = (_FAILS, number, place)
            elif fate == "nan":
                colour = (_NAN, number, place)
            image = b"text" if fate == "text" else _image(*colour)
            streams[place] += classify(number, image, seconds=-1.0 if fate == "late" else 60.0, flags=flags)
            if fate == "late":
                late.add(colour)
            if fate == "cancelled":
                streams[place] += frame(Kind.CANCEL, number)
                cancelled[place].add(number)
            expected[place][number] = {
                "text": "UNSUPPORTED_FORMAT",
                "fails": "INTERNAL",
                "nan": "INTERNAL",
                "late": "DEADLINE_EXCEEDED",
            }.get(fate, colour)
    while any(streams):
        place = chance.choice([place for place, stream in enumerate(streams) if stream])
        piece = chance.choice([1, 7, 100, 1000, 5000])
        fronts[place].socket.sendall(streams[place][:piece])
        del streams[place][:piece]
    for place, front in enumerate(fronts):
        sure = expected[place].keys() - cancelled[place]
        front.until(lambda front=front, sure=sure: sure <= dict(front.results()).keys())
        heard = front.results()
        assert len(heard) == len(dict(heard)), "a job was answered twice"
        for number, result in heard:
            seen = result.error.code if result.HasField("error") else _colour(result)
            assert seen == expected[place][number]
    assert not late & engine.runtime.seen
    assert max(len(batch) for batch in engine.runtime.batches) <= engine.runtime.max_batch
