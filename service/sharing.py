"""Jobs with the same image and the same question share an answer: one that is known, or one that is on its way.

The first of them is sent; it leads. The others follow: they wait for its answer. When nobody waits for the leader's own
call any more, the next in line takes its place, wherever that is.
"""

import hashlib
from collections.abc import Callable
from typing import Final

from protos.classifier_pb2 import Result
from service.cache import AnswerCache, AnswerKey
from service.call import Job, ShareKey
from service.errors import (
    BY_CODE,
    CorruptImage,
    EmptyImage,
    ImageError,
    ImageTooLarge,
    InternalError,
    UnsupportedFormat,
)
from service.routes import Routes

_SHARED_BYTES: Final = 4 << 20
"""Larger files are not looked up: their digest would hold up the front, and they hardly come twice."""

_KEPT: Final = {"", EmptyImage.code, UnsupportedFormat.code, CorruptImage.code, ImageTooLarge.code}
"""Codes of results that another run would give again; without a code it is an answer."""


class Sharing:
    """Finds jobs the answers that they can share.

    Args:
        cache_bytes: for answers to images that come again; 0 for no sharing at all.
        dispatch: sends a job to an engine.
        finish: gives a job its result.
    """

    def __init__(
        self, cache_bytes: int, dispatch: Callable[[Job], None], finish: Callable[[Job, Result], None]
    ) -> None:
        self._cache = AnswerCache(cache_bytes) if cache_bytes else None
        self._leaders: dict[ShareKey, Job] = {}
        self._dispatch = dispatch
        self._finish = finish

    def start(self, job: Job) -> None:
        """Answers a job with what is known, lets it follow another, or sends it."""
        cache, call = self._cache, job.call
        if cache is None or call.request.probe or len(job.image) > _SHARED_BYTES:
            self._dispatch(job)
            return
        digest = hashlib.sha256(job.image).digest()
        answer_key = AnswerKey(call.model, call.version, call.request.top_k, job.flags, digest)
        known = cache.get(answer_key)
        if known is not None:
            self._finish(job, Result.FromString(known))
            return
        key = answer_key, call.request.bulk
        leader = self._leaders.get(key)
        if leader is not None:
            job.leader = leader
            leader.followers = [*(leader.followers or ()), job]
            return
        job.key = key
        self._leaders[key] = job
        self._dispatch(job)

    def tell(self, job: Job, result: Result) -> None:
        """Keeps a result that another run would give again; gives it to the followers, if it can be theirs."""
        cache, key = self._cache, job.key
        if cache is None or key is None:
            return
        del self._leaders[key]
        job.key = None
        followers, job.followers = job.followers or (), None
        code = result.error.code
        for_all = not code or issubclass(BY_CODE[code], ImageError | InternalError)
        kept = Result()
        kept.CopyFrom(result)
        kept.ClearField("timing_ms")  # those who get it did not cost this time
        if code in _KEPT:
            cache.put(key[0], kept.SerializeToString())
        for follower in followers:
            follower.leader = None
            if for_all:
                own = Result()
                own.CopyFrom(kept)
                self._finish(follower, own)
            else:  # it was the other's deadline, or the version that only the other insisted on
                self.start(follower)

    def leave(self, job: Job) -> Job | None:
        """Nobody waits for this job any more; who leads in its place and must take it, if anybody does."""
        if job.leader is not None:
            if job.leader.followers:
                job.leader.followers.remove(job)
            job.leader = None
            return None
        key, followers = job.key, job.followers
        job.key = job.followers = None
        if key is None:
            return None
        if not followers:
            self._leaders.pop(key, None)
            return None
        heir = followers.pop(0)
        heir.leader, heir.key, heir.followers = None, key, followers
        for follower in followers:
            follower.leader = heir
        self._leaders[key] = heir
        return heir

    def forget(self, routes: Routes) -> None:
        """Forgets the answers of versions that are no longer served."""
        if self._cache is None:
            return
        self._cache.keep(
            {
                (name, number)
                for name, model in routes.models.items()
                for number, version in model.versions.items()
                if version.state == "AVAILABLE"
            }
        )
