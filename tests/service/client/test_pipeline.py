"""Many files through a client that fails in every way: what becomes a row, what is asked again, what ends the run."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from service.client import Ask, Client, ClientError, Prediction, Refused, Retry, Unanswered
from service.client.pipeline import LARGEST_FILE_BYTES, Limits, classify_files


class _Scripted(Client):
    """A client without a service: `answer` is called with the contents of the images of each request."""

    def __init__(self, answer: Callable[[list[str]], list[str]]) -> None:
        super().__init__(60, Retry(tries=2, first_wait_s=0.001))
        self.requests: list[list[str]] = []
        self._answer = answer
        self._lock = threading.Lock()
        self.most_at_once = self._at_once = 0

    def _try(self, images: Sequence[tuple[str, bytes]], ask: Ask, timeout_s: float) -> list[Prediction]:  # noqa: ARG002
        contents = [data.decode() for _, data in images]
        with self._lock:
            self.requests.append(contents)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            said = self._answer(contents)
        finally:
            with self._lock:
                self._at_once -= 1
        return [
            Prediction(name, error=one) if ":" in one else Prediction(name, one)
            for (name, _), one in zip(images, said, strict=True)
        ]

    def _hang_up(self) -> None:
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Waiting for a service that is away takes no time here."""
    monkeypatch.setattr("service.client.pipeline._WAIT_S", 0.001)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Forty files that contain their number."""
    for number in range(40):
        (tmp_path / f"{number:02}").write_text(str(number), encoding="utf-8")
    return [str(tmp_path / f"{number:02}") for number in range(40)]


def _run(client: Client, paths: Sequence[str], **limits: float) -> list[tuple[str, str]]:
    chosen = Limits(**({"requests": 4, "images": 8, "patience_s": 60.0} | limits))  # type: ignore[arg-type]
    found = [one for some in classify_files(client, paths, Ask(), chosen, lambda _: None) for one in some]
    assert [one.filename for one in found] == list(paths)  # each once, in order, whatever happened
    return [(Path(one.filename).name, one.label or one.error) for one in found]


def _echo(contents: list[str]) -> list[str]:
    return [f"n{one}" for one in contents]


_ECHOED = [(f"{number:02}", f"n{number}") for number in range(40)]


@pytest.mark.parametrize(
    "limits", [{}, {"images": 1}, {"requests": 1}, {"images": 100}, {"requests": 40, "images": 3}], ids=str
)
def test_the_answers_do_not_depend_on_how_they_were_asked_for(files: list[str], limits: dict[str, float]) -> None:
    """However many at once, and however they are grouped."""
    client = _Scripted(_echo)
    assert _run(client, files, **limits) == _ECHOED
    assert max(map(len, client.requests)) == min(40, limits.get("images", 8))
    assert client.most_at_once <= limits.get("requests", 4)


def test_files_are_taken_as_they_are_needed(files: list[str]) -> None:
    """Of endless files, no more are taken than twice what may be in flight."""
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield files[taken % 40]

    answers = classify_files(_Scripted(_echo), endless(), Ask(), Limits(3, 5), lambda _: None)
    for got in range(1, 20):
        assert len(next(answers)) == 5
        assert taken <= (got + 2 * 3 + 1) * 5
    answers.close()


def test_large_files_are_asked_about_in_smaller_groups(tmp_path: Path) -> None:
    """A request holds about 8 MiB; a file that is larger goes alone."""
    for number, size in enumerate((6 << 20, 2 << 20, 1, 9 << 20, 1)):
        (tmp_path / str(number)).write_bytes(b"x" * size)
    client = _Scripted(lambda contents: [str(len(one)) for one in contents])
    _run(client, [str(tmp_path / str(number)) for number in range(5)])
    assert [[len(one) for one in request] for request in client.requests] == [[6 << 20, 2 << 20], [1], [9 << 20], [1]]


def test_files_that_cannot_be_read_are_rows(tmp_path: Path, files: list[str]) -> None:
    """Missing, a folder, a device, far too large: each says so, in its place."""
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(LARGEST_FILE_BYTES + 1)
    paths = [files[0], str(tmp_path / "nowhere"), str(tmp_path), "/dev/null", str(huge), files[1]]
    said = [what for _, what in _run(_Scripted(_echo), paths)]
    assert said == [
        "n0",
        "cannot read the file: No such file or directory",
        "cannot read the file: Is a directory",
        "cannot read the file: expected a regular file or a pipe",
        f"IMAGE_TOO_LARGE: expected at most {LARGEST_FILE_BYTES} bytes, got {LARGEST_FILE_BYTES + 1}",
        "n1",
    ]


def test_a_service_that_is_away_for_a_while_costs_nothing(files: list[str]) -> None:
    """It answers, is away for many tries of every thread, and comes back: all images are answered, and it is said."""
    asked = 0
    reasons: list[str] = []

    def answer(contents: list[str]) -> list[str]:
        nonlocal asked
        asked += 1
        if 3 < asked < 60:
            raise Unanswered("gone fishing")
        return _echo(contents)

    limits = Limits(4, 2, patience_s=60)
    found = [one for some in classify_files(_Scripted(answer), files, Ask(), limits, reasons.append) for one in some]
    assert [one.label for one in found] == [label for _, label in _ECHOED]
    assert set(reasons) == {"gone fishing"}


def test_a_service_that_was_never_there_is_no_reason_to_wait(files: list[str]) -> None:
    """After the client's own tries."""

    def answer(_: list[str]) -> list[str]:
        raise Unanswered("nobody there")

    with pytest.raises(Unanswered, match="nobody there"):
        _run(_Scripted(answer), files)


def test_an_overloaded_service_is_waited_for(files: list[str]) -> None:
    """Overload from the first request on, for longer than the tries and the patience: it is there, so nothing ends."""
    refusals = 30
    lock = threading.Lock()

    def answer(contents: list[str]) -> list[str]:
        nonlocal refusals
        with lock:
            refusals -= 1
            if refusals >= 0:
                raise Unanswered("OVERLOADED", retry_after_s=0.001, overloaded=True)
        return _echo(contents)

    assert _run(_Scripted(answer), files, patience_s=0.001) == _ECHOED


def test_a_service_that_never_gets_ready_ends_the_run(files: list[str]) -> None:
    """It may say when to come back, as a proxy does for a service that is gone."""

    def answer(_: list[str]) -> list[str]:
        raise Unanswered("UNAVAILABLE", retry_after_s=0.001)

    with pytest.raises(Unanswered, match="UNAVAILABLE"):
        _run(_Scripted(answer), files)


def test_patience_ends(files: list[str]) -> None:
    """A service that does not come back ends the run."""
    asked = 0

    def answer(contents: list[str]) -> list[str]:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise Unanswered("gone for good")
        return _echo(contents)

    with pytest.raises(Unanswered, match="gone for good"):
        _run(_Scripted(answer), files, patience_s=0.05)


@pytest.mark.parametrize("code", ["REQUEST_TOO_LARGE", "RESOURCE_EXHAUSTED", "INVALID_REQUEST", "INTERNAL"])
def test_a_request_of_too_many_is_halved(files: list[str], code: str) -> None:
    """A service that takes at most three images, or fails on one of them."""

    def answer(contents: list[str]) -> list[str]:
        if len(contents) > 3:
            raise Refused(f"{code}: too many", code)
        return _echo(contents)

    assert _run(_Scripted(answer), files) == _ECHOED


@pytest.mark.parametrize("code", ["REQUEST_TOO_LARGE", "RESOURCE_EXHAUSTED", "INTERNAL"])
def test_a_request_that_fails_for_one_image_is_that_image_s_row(files: list[str], code: str) -> None:
    """The others are answered."""

    def answer(contents: list[str]) -> list[str]:
        if "13" in contents:
            raise Refused(f"{code}: not this one", code)
        return _echo(contents)

    assert _run(_Scripted(answer), files) == [*_ECHOED[:13], ("13", f"{code}: not this one"), *_ECHOED[14:]]


@pytest.mark.parametrize("code", ["MODEL_NOT_FOUND", "INVALID_REQUEST", "UNSUPPORTED_MEDIA_TYPE", ""])
def test_what_every_image_would_hear_ends_the_run(files: list[str], code: str) -> None:
    """It is the question that is wrong. The client is closed, so that nobody waits for answers in flight."""

    def answer(_: list[str]) -> list[str]:
        raise Refused(f"{code}: wrong", code)

    client = _Scripted(answer)
    with pytest.raises(Refused, match="wrong"):
        _run(client, files)
    assert client._closed.is_set()


@pytest.mark.parametrize("code", ["OVERLOADED", "UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_images_that_failed_for_the_moment_are_asked_again(files: list[str], code: str) -> None:
    """Only those; what fails for ever keeps its error after a few rounds; what is wrong itself is not asked again."""
    times: dict[str, int] = {}

    def answer(contents: list[str]) -> list[str]:
        for one in contents:
            times[one] = times.get(one, 0) + 1
        said = _echo(contents)
        for index, one in enumerate(contents):
            if one == "7" and times[one] < 3:
                said[index] = f"{code}: later"
            if one == "9":
                said[index] = f"{code}: never"
            if one == "11":
                said[index] = "CORRUPT_IMAGE: broken"
        return said

    found = dict(_run(_Scripted(answer), files))
    assert (found["07"], found["09"], found["11"]) == ("n7", f"{code}: never", "CORRUPT_IMAGE: broken")
    assert (times["7"], times["9"], times["11"], times["8"]) == (3, 4, 1, 1)


def test_ending_early_closes_the_client(files: list[str]) -> None:
    """As Ctrl-C does: threads that wait are woken, and nothing more is asked."""
    hanging, closed = threading.Event(), threading.Event()

    class Hanging(_Scripted):
        def _hang_up(self) -> None:
            closed.set()

    def answer(contents: list[str]) -> list[str]:
        if "39" not in contents and "0" not in contents:
            hanging.set()
            assert closed.wait(60)
            raise Unanswered("closed")
        return _echo(contents)

    client = Hanging(answer)
    answers = classify_files(client, files, Ask(), Limits(2, 1, 60), lambda _: None)
    next(answers)
    assert hanging.wait(60)
    with pytest.raises(KeyboardInterrupt):
        answers.throw(KeyboardInterrupt())
    assert closed.is_set()
    with pytest.raises(ClientError):
        client.classify([("a", b"1")])
