"""Classify many images with one version directory, without fronts: the trainer's evaluation.

Starts the same engine processes and uses the same classifier as the service does, so what is evaluated is what will be
served: files through the one decode, in batches, on the engine that this host would use.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from protos.classifier_pb2 import Result
from service.classifier import Classifier
from service.errors import BrokenVersion
from service.pool import EngineProcess, engine_cores, wait_until_loaded
from service.reactor import AsyncioReactor
from service.request import Answer, Request
from service.routes import ModelRoute, Routes, VersionRoute, write_routes
from service.settings import MAX_PIXELS
from service.version import read_version

_WINDOW: Final = 64
_LOAD_TIMEOUT_S: Final = 600.0
_IMAGE_TIMEOUT_S: Final = 300.0


class OfflineClassifier:
    """A version directory, loaded and proven as the service would.

    Args:
        version_dir: published or not yet.
        engine: one of settings.LOCAL_ENGINES.

    Attributes:
        engine: what it runs on, such as "openvino/bf16".

    Raises:
        BrokenVersion: hashes or goldens disagree, or no engine loads it.
    """

    def __init__(self, version_dir: Path, engine: str = "auto") -> None:
        version = read_version(version_dir)
        self._run_dir = Path(tempfile.mkdtemp(prefix="graft-offline-"))
        self._engines: list[EngineProcess] = []
        self._classifier: Classifier | None = None
        self._loop = asyncio.new_event_loop()
        options = ("--parent", str(os.getpid()))
        try:
            for core in engine_cores(0):
                self._engines.append(EngineProcess(version_dir, self._run_dir, engine, core, MAX_PIXELS, options))
            wait_until_loaded(self._engines, _LOAD_TIMEOUT_S)
            for process in self._engines:
                if process.error:
                    raise BrokenVersion(process.error)
            self.engine = self._engines[0].engine
            sockets = tuple(str(process.socket) for process in self._engines)
            route = VersionRoute("AVAILABLE", sockets, self.engine)
            routes_path = self._run_dir / "routes.json"
            write_routes(routes_path, Routes({version.name: ModelRoute(version.number, {version.number: route})}))
            self._classifier = Classifier(
                AsyncioReactor(self._loop), routes_path, max_queue=_WINDOW, max_images=1, max_image_bytes=sys.maxsize
            )
        except BaseException:
            self.close()
            raise

    def classify(
        self, images: Iterable[bytes], top_k: int = 5, pixels_sha256: bool = False, activation_map: bool = False
    ) -> Iterator[Result]:
        """Classifies image files, at most 64 of them in memory at a time.

        Args:
            images: whole files.
            top_k: labels per image.
            pixels_sha256: also return the digest of the pixels that the model saw.
            activation_map: also return the class activation map of the best label.

        Yields:
            One result per image, in order; a failed image's result is an error.
        """
        pending: deque[asyncio.Future[Answer]] = deque()
        for image in images:
            pending.append(
                self._submit(
                    Request([image], "", 0, top_k, pixels_sha256, _IMAGE_TIMEOUT_S, activation_map=activation_map)
                )
            )
            if len(pending) == _WINDOW:
                yield self._next(pending)
        while pending:
            yield self._next(pending)

    def close(self) -> None:
        """Ends the engines."""
        if self._classifier:
            self._classifier.close()
        for engine in self._engines:
            engine.kill()
        self._loop.close()
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def __enter__(self) -> "OfflineClassifier":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, request: Request) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = self._loop.create_future()
        assert self._classifier is not None  # noqa: S101 - None only while __init__ fails
        self._classifier.submit(request, future.set_result)
        return future

    def _next(self, pending: deque[asyncio.Future[Answer]]) -> Result:
        return self._loop.run_until_complete(pending.popleft()).results[0]
