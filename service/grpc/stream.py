"""One ClassifyStream call: many requests at once, answered as they finish, and never more than a window of them held.

Owns the order of reading and writing, not what a request means.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from google.protobuf.message import DecodeError

from protos.classifier_pb2 import (
    ClassifyRequest,
    ClassifyResponse,
    ClassifyStreamRequest,
    ClassifyStreamResponse,
    Error,
)
from service.errors import GraftError, InvalidRequest, Unavailable
from service.grpc.call import Call

WINDOW_IMAGES: Final = 64
"""Images of one stream that are read and not yet answered; the next request is read when there are fewer. Two full
batches for each of eight engines, and an eighth of the default --max-queue."""


class Stream:
    """Answers one stream until the client has said all, has gone away, or the service ends.

    An answer counts as held until gRPC has taken it, which it does not while the client does not read. So what a stream
    holds is bounded by the window and one request more, whatever the client does.

    Args:
        call: whose.
        answer: answers one request; raises GraftError when it fails as a whole.
        window_bytes: bytes of requests that are read and not yet answered; the next is read when there are fewer.
    """

    def __init__(
        self,
        call: Call,
        answer: Callable[[ClassifyRequest], Awaitable[ClassifyResponse]],
        window_bytes: int,
    ) -> None:
        self._call = call
        self._answer = answer
        self._window_bytes = window_bytes
        self._images = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._writing = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._ending = False
        self._refusal: InvalidRequest | None = None

    async def run(self) -> None:
        """Serves the stream, until the client has said all or `end` was called.

        Raises:
            Unavailable: it was ended, and the client may have more to say.
            InvalidRequest: it sent what is no request.
        """
        async with asyncio.TaskGroup() as tasks:  # when the client goes away, all of them are cancelled
            self._reading = tasks.create_task(self._read(tasks))
        if self._ending:
            raise Unavailable("the service is ending; send again what was not answered")
        if self._refusal:
            raise self._refusal

    def end(self) -> None:
        """Reads nothing more; what was read is still answered."""
        self._ending = True
        if self._reading:
            self._reading.cancel()

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        while not self._ending:
            try:
                message: ClassifyStreamRequest | None = await self._call.read()
            except DecodeError:
                self._refusal = InvalidRequest("expected a ClassifyStreamRequest, got a message that is none")
                return
            if message is None:
                return
            cost = max(1, len(message.request.images)), message.ByteSize()
            self._images += cost[0]
            self._bytes += cost[1]
            tasks.create_task(self._respond(message, *cost))
            while self._images >= WINDOW_IMAGES or self._bytes >= self._window_bytes:
                self._room.clear()
                await self._room.wait()

    async def _respond(self, message: ClassifyStreamRequest, images: int, size_bytes: int) -> None:
        response = ClassifyStreamResponse(id=message.id)
        try:
            response.response.CopyFrom(await self._answer(message.request))
        except GraftError as error:
            response.error.CopyFrom(Error(code=error.code, detail=error.detail))
        async with self._writing:
            await self._call.write(response)
        self._images -= images
        self._bytes -= size_bytes
        self._room.set()
