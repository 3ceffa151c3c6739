"""The engine's one thread: read what arrived, take a batch, decode, infer, answer, repeat.

Owns the connections from the fronts and the queue. Run to completion: nothing is handed to another thread, so while a
batch runs, new jobs wait in the socket buffers and become the next batch.
"""

import hashlib
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np

from protos.classifier_pb2 import ActivationMap, Region, Result, Timing
from protos.classifier_pb2 import Error as ErrorMessage
from service.backlog import Backlog
from service.engine.activation import ActivationMaps
from service.engine.cost import BatchCost
from service.engine.queue import BatchQueue
from service.engine.runtime import Runtime, Scores
from service.engine.tensor import read_pixels
from service.errors import DeadlineExceeded, GraftError, InternalError
from service.image import Pixels, decode, seen_region
from service.version import Version
from service.wire import (
    ACTIVATION_MAP,
    ALL_SCORES,
    BULK,
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

_RECEIVE_BYTES = 1 << 17
"""A larger buffer is mapped and unmapped for every call: 75 instead of 12 us to receive 100 kB (docs/decisions.md)."""
_RECEIVES = 32
"""Most buffers in a row from one front, whose sockets hold less; so that the first jobs see all that are there."""
_SHOW_LIFE_EVERY_S = 1.0
_LONGEST_PREPARATION_S = 300.0
_BATCH_OF_TARGET = 0.5
"""Most of the target that one batch may take: a job waits for the batch that runs when it comes, then for its own."""
_log = logging.getLogger("graft.engine")


@dataclass(eq=False)
class _Connection:
    """One front. `outgoing` is what the socket did not take yet; `stalled` means that we wait for it to take more."""

    socket: socket.socket
    slot: int
    reader: FrameReader = field(default_factory=FrameReader)
    outgoing: bytearray = field(default_factory=bytearray)
    stalled: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class _Job:
    """One image on its way."""

    connection: _Connection
    number: int
    ask: Classify

    @property
    def key(self) -> tuple[int, int]:
        return id(self.connection), self.number

    @property
    def deadline(self) -> float:
        return self.ask.deadline

    @property
    def solo(self) -> bool:
        return bool(self.ask.flags & (SOLO | ACTIVATION_MAP))

    @property
    def bulk(self) -> bool:
        return bool(self.ask.flags & BULK)

    @property
    def whole_host(self) -> bool:
        return bool(self.ask.flags & WHOLE_HOST)


class EngineLoop:
    """Answers jobs until it is told to drain and every front has hung up.

    Args:
        listener: bound and listening Unix socket.
        version: what is loaded.
        runtime: its model.
        max_pixels: limit for one picture.
        target_s: time within which nearly all answers should be there; batches are sized by it.
        clock: monotonic seconds, the same clock as the fronts'.
    """

    def __init__(
        self,
        listener: socket.socket,
        version: Version,
        runtime: Runtime,
        max_pixels: int,
        *,
        target_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._socket_path: str = listener.getsockname()
        self._next_sign = 0.0
        self._version = version
        self._labels = list(version.manifest.class_names)
        self._runtime = runtime
        self._activation_maps = ActivationMaps(version, runtime)
        self._max_pixels = max_pixels
        self._clock = clock
        self._queue: BatchQueue[_Job] = BatchQueue()
        self._cost = BatchCost(runtime.max_batch)
        self._batch_limit_s = _BATCH_OF_TARGET * target_s
        self._batch_size = runtime.max_batch
        self._backlog = Backlog(self._socket_path, create=True)
        self._connections: set[_Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        listener.setblocking(False)
        # written by `drain`, which may run in a signal handler; the pipe wakes the selector
        self._draining = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)

    def drain(self) -> None:
        """Asks the loop to take no new connection, answer what it has and end. Safe in a signal handler."""
        self._draining = True
        self._wake_writer.send(b"d")

    def run(self) -> None:
        """Serves until drained."""
        told = False
        while True:
            if self._draining and not told:
                told = True
                self._tell_draining()
            if told and not self._connections:
                return
            self._show_life()
            self._receive(block=not self._queue)
            started = self._clock()
            batch, expired = self._queue.take(started, self._batch_size, self._cost.seconds(1))
            self._answer([(job, _late()) for job in expired])
            if batch:
                # nothing else was there when it was sent; it may be now
                whole_host = batch[0].whole_host and len(batch) == 1 and not self._queue
                decoded, complete = self._run(batch, whole_host=whole_host)
                if decoded and not batch[0].solo:
                    threads = self._runtime.host_threads if whole_host else 1
                    self._learn(decoded, self._clock() - started, complete=complete, threads=threads)

    def _learn(self, size: int, seconds: float, *, complete: bool, threads: int) -> None:
        cost = self._cost
        if not complete:
            cost.observe_at_least(size, seconds)
        elif threads > 1:
            cost.observe_at_most(size, threads * seconds)
        else:
            cost.observe(size, seconds)
        self._batch_size = size = cost.largest(self._batch_limit_s)
        batch_s = cost.seconds(size)
        self._backlog.publish(batch_s / size, batch_s)

    def _tell_draining(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()
        for connection in list(self._connections):
            self._send(connection, frame(Kind.DRAINING, 0))

    def _show_life(self) -> None:
        """Dates the socket's file, at most every second; the supervisor replaces an engine that stops doing so.

        The date is the monotonic clock's, which no correction of the time of day disturbs.
        """
        now = self._clock()
        if now >= self._next_sign:
            self._next_sign = now + _SHOW_LIFE_EVERY_S
            with suppress(FileNotFoundError):
                os.utime(self._socket_path, (now, now))

    @contextmanager
    def _showing_life(self) -> Iterator[None]:
        """Shows life during one long step, such as compiling; not for ever, so that a hang is noticed all the same."""
        ended = threading.Event()

        def show() -> None:
            for _ in range(round(_LONGEST_PREPARATION_S / _SHOW_LIFE_EVERY_S)):
                now = self._clock()
                with suppress(FileNotFoundError):
                    os.utime(self._socket_path, (now, now))
                if ended.wait(_SHOW_LIFE_EVERY_S):
                    return

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # -- batches

    def _run(self, batch: Sequence[_Job], *, whole_host: bool) -> tuple[int, bool]:
        """Answers a batch; says how many of its images were decoded, and whether all of these reached the model."""
        if batch[0].solo:
            self._send(batch[0].connection, frame(Kind.RUNNING, batch[0].number))
        started = self._clock()
        decoded: list[tuple[_Job, Pixels, Result]] = []
        failed: list[tuple[_Job, Result]] = []
        before = started
        for job in batch:
            self._show_life()
            if job.deadline <= before:  # its neighbours took long
                failed.append((job, _late()))
                continue
            try:
                pixels = self._pixels(job.ask)
            except GraftError as error:
                failed.append((job, _failure(error)))
            except Exception:  # noqa: BLE001 - a decoder may fail in any way; its neighbours shall not notice
                _log.exception("decode failed on an image of %d bytes", len(job.ask.image))
                failed.append((job, _failure(InternalError("the image could not be decoded"))))
            else:
                now = self._clock()
                timing = Timing(queue=(started - job.ask.sent) * 1e3, decode=(now - before) * 1e3)
                decoded.append((job, pixels, Result(timing_ms=timing)))
            before = self._clock()
        in_time = [one for one in decoded if one[0].deadline > before]
        failed += [(job, _late()) for job, _, _ in decoded if job.deadline <= before]
        self._answer(failed)
        if in_time:
            self._infer(in_time, whole_host=whole_host)
        return len(decoded), len(in_time) == len(decoded)

    def _pixels(self, ask: Classify) -> Pixels:
        if ask.flags & PIXELS:
            return read_pixels(ask.image, self._version.spec.side_px, float32=bool(ask.flags & FLOAT32))
        return decode(ask.image, self._version.spec, self._max_pixels)

    def _infer(self, decoded: Sequence[tuple[_Job, Pixels, Result]], *, whole_host: bool = False) -> None:
        started = self._clock()
        try:
            scores = self._runtime.predict(np.stack([pixels for _, pixels, _ in decoded]), whole_host=whole_host)
        except GraftError as error:  # whoever computes for us has said why; asking again for each image is no help
            self._answer([(job, _failure(error)) for job, _, _ in decoded])
            return
        except Exception:  # noqa: BLE001 - foreign runtimes raise anything
            _log.exception("inference failed on a batch of %d", len(decoded))
            if len(decoded) > 1:  # somebody's image may be the cause: the others shall not pay for it
                for one in decoded:
                    self._infer([one])
            else:
                self._answer([(decoded[0][0], _failure(InternalError("the model failed on this image")))])
            return
        inference_ms = (self._clock() - started) * 1e3
        finite = np.logical_and.reduce(np.isfinite(scores), axis=1)
        for (job, pixels, result), row, usable in zip(decoded, scores, finite, strict=True):
            if not usable:
                result.CopyFrom(_failure(InternalError("the model gave a score that is not a number")))
                continue
            result.timing_ms.inference = inference_ms
            result.timing_ms.batch_size = len(decoded)
            best = self._label(result, row, job.ask.top_k)
            if job.ask.flags & ALL_SCORES:
                result.scores.extend(row.tolist())
            if job.ask.flags & PIXELS_SHA256:
                result.pixels_sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
            if job.ask.flags & ACTIVATION_MAP:
                self._explain(result, job, pixels, best)
        self._answer([(job, result) for job, _, result in decoded])

    def _label(self, result: Result, scores: Scores, top_k: int) -> int:
        """Fills in the best labels; returns the number of the best."""
        values = scores.tolist()  # Python's numbers: protobuf takes numpy's many times slower
        ranked = scores.argsort(kind="stable")[::-1][: max(1, top_k)].tolist()
        for index in ranked:
            result.top.add(label=self._labels[index], score=values[index])
        best: int = ranked[0]
        result.label, result.score = self._labels[best], values[best]
        result.unknown = values[best] < self._version.manifest.unknown_threshold
        return best

    def _explain(self, result: Result, job: _Job, pixels: Pixels, number: int) -> None:
        """Adds the map of one class, or replaces the result by the reason why there is none."""
        started = self._clock()
        try:
            if not self._activation_maps.ready:
                with self._showing_life():
                    self._activation_maps.prepare()
            values = self._activation_maps.map(pixels, number)
            region = self._region(job)
        except GraftError as error:
            result.CopyFrom(_failure(error))
        except Exception:  # noqa: BLE001 - foreign runtimes raise anything
            _log.exception("no class activation map")
            result.CopyFrom(_failure(InternalError("the class activation map could not be computed")))
        else:
            result.timing_ms.inference += (self._clock() - started) * 1e3
            height, width = values.shape
            result.activation_map.CopyFrom(
                ActivationMap(height=height, width=width, values=values.ravel(), region_px=region)
            )

    def _region(self, job: _Job) -> Region:
        """What part of its picture the job's map covers; all of it where pixels came instead of a file."""
        spec = self._version.spec
        if job.ask.flags & PIXELS:
            return Region(left=0, top=0, width=spec.side_px, height=spec.side_px)
        seen = seen_region(job.ask.image, spec, self._max_pixels)
        return Region(left=seen.left, top=seen.top, width=seen.width, height=seen.height)

    # -- connections

    def _answer(self, results: Sequence[tuple[_Job, Result]]) -> None:
        replies: dict[_Connection, bytearray] = {}
        for job, result in results:
            body = frame(Kind.RESULT, job.number, result.SerializeToString())
            replies.setdefault(job.connection, bytearray()).extend(body)
        for connection, reply in replies.items():
            self._send(connection, reply)

    def _receive(self, *, block: bool) -> None:
        for key, events in self._selector.select(_SHOW_LIFE_EVERY_S if block else 0):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._wake_reader:
                self._wake_reader.recv(64)
            else:
                connection: _Connection = key.data
                if events & selectors.EVENT_WRITE:
                    self._send(connection, b"")
                if events & selectors.EVENT_READ:
                    self._read(connection)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # the front was gone again
            return
        accepted.setblocking(False)
        connection = _Connection(accepted, self._backlog.claim())
        self._connections.add(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)
        self._send(connection, frame(Kind.SLOT, connection.slot))

    def _read(self, connection: _Connection) -> None:
        if connection not in self._connections:  # closed by a failed write a moment ago
            return
        for _ in range(_RECEIVES):
            try:
                chunk = connection.socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                chunk = b""
            if not chunk:
                self._close(connection)
                return
            for kind, number, body in connection.reader.feed(chunk):
                if kind is Kind.CLASSIFY:
                    self._queue.put(_Job(connection, number, parse_classify(body)))
                elif kind is Kind.CANCEL:
                    self._queue.cancel((id(connection), number))
            if len(chunk) < _RECEIVE_BYTES:
                return

    def _send(self, connection: _Connection, chunk: bytes | bytearray) -> None:
        if connection not in self._connections:
            return
        connection.outgoing += chunk
        try:
            while connection.outgoing:
                del connection.outgoing[: connection.socket.send(connection.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)
            return
        if bool(connection.outgoing) != connection.stalled:
            connection.stalled = not connection.stalled
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.stalled else 0)
            self._selector.modify(connection.socket, events, connection)

    def _close(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._backlog.release(connection.slot)
        self._queue.cancel_where(lambda job: job.connection is connection)


def _late() -> Result:
    return _failure(DeadlineExceeded("the deadline passed in the queue"))


def _failure(error: GraftError) -> Result:
    return Result(error=ErrorMessage(code=error.code, detail=error.detail))
