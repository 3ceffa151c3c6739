"""Pixels of many images, decoded in threads as the service decodes them, and never all at once."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from service.errors import GraftError
from service.image import ImageSpec, Pixels, decode
from training.dataset import Image
from training.errors import DataError

THREADS = min(8, os.cpu_count() or 1)


def read(image: Image) -> bytes:
    """The bytes of an image's file.

    Raises:
        DataError: it is gone, or not what was indexed.
    """
    try:
        content = image.path.read_bytes()
    except OSError as error:
        raise DataError(f"{image.path} could be read a moment ago, and not now: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != image.sha256:
        raise DataError(f"{image.path} was changed while training read it")
    return content


def pixels(image: Image, spec: ImageSpec) -> Pixels:
    """uint8 [S,S,3] of one image.

    Raises:
        DataError: it cannot be read any more.
    """
    try:
        return decode(read(image), spec)
    except GraftError as error:
        raise DataError(f"{image.path}: {error.detail}") from error


def loader(images: Sequence[Image], spec: ImageSpec) -> Callable[[Iterable[int]], Pixels]:
    """Decodes images anew whenever they are asked for, in threads: positions [N] to uint8 [N,S,S,3]."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
    return lambda positions: np.stack(list(threads.map(lambda at: pixels(images[at], spec), positions)))


def batches(images: Sequence[Image], spec: ImageSpec, size: int) -> Iterator[Pixels]:
    """Decodes images in threads; at most three batches of pixels are in memory.

    Args:
        images: what to decode.
        spec: how.
        size: images per batch; the last one may be smaller.

    Yields:
        uint8 [N,S,S,3], in order.
    """
    batch = []
    for one in _ahead(lambda image: pixels(image, spec), images, 2 * size):
        batch.append(one)
        if len(batch) == size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def _ahead(function: Callable[[Image], Pixels], images: Sequence[Image], window: int) -> Iterator[Pixels]:
    """Applies `function` in threads, at most `window` images ahead of the reader."""
    pending: deque[Future[Pixels]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="decode") as pool:
        try:
            for image in images:
                pending.append(pool.submit(function, image))
                if len(pending) == window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for rest in pending:
                rest.cancel()
