"""service/cache.py: what is kept is right, and never more than there is room for."""

from hypothesis import given
from hypothesis import strategies as st

from service.cache import AnswerCache, AnswerKey


def _key(name: int, version: int = 1) -> AnswerKey:
    return AnswerKey("pets", version, 5, 0, name.to_bytes(32, "big"))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3), st.integers(0, 800)), max_size=60), st.integers(0, 5000)
)
def test_it_gives_what_was_put_last_and_keeps_its_bound(steps: list[tuple[int, int, int]], max_bytes: int) -> None:
    """Whatever is put: a key gives its latest answer or none, and all of them fit."""
    cache, latest = AnswerCache(max_bytes), {}
    for name, version, size in steps:
        latest[_key(name, version)] = bytes([name]) * size
        cache.put(_key(name, version), latest[_key(name, version)])
        kept = {key: answer for key in latest if (answer := cache.get(key)) is not None}
        assert kept.items() <= latest.items()
        assert sum(map(len, kept.values())) <= max_bytes
        assert cache._bytes == sum(400 + len(answer) for answer in kept.values()) <= max(0, max_bytes)
    cache.keep({("pets", 2)})
    assert all(cache.get(key) is None for key in latest if key.version != 2)
    cache.keep(set())
    assert cache._bytes == 0


def test_the_least_recently_used_goes_first() -> None:
    """Asking for an answer keeps it."""
    cache = AnswerCache(3 * 500)
    for name in (1, 2, 3):
        cache.put(_key(name), b"x" * 100)
    assert cache.get(_key(1)) is not None
    cache.put(_key(4), b"x" * 100)
    assert [name for name in (1, 2, 3, 4) if cache.get(_key(name)) is not None] == [1, 3, 4]


def test_an_answer_that_is_too_large_is_not_kept() -> None:
    """It pushes out the others and then itself; nothing breaks."""
    cache = AnswerCache(1000)
    cache.put(_key(1), b"x")
    cache.put(_key(2), b"x" * 2000)
    assert cache.get(_key(2)) is None
    cache.put(_key(3), b"x")
    assert cache.get(_key(3)) == b"x"
