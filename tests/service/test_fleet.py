"""service/fleet.py: there is a link to every engine that is listed, whatever happened to the one before."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.backlog import Backlog
from service.fleet import Fleet
from service.link import Link
from service.routes import ModelRoute, Routes, VersionRoute, write_routes


class _Reactor:
    """Stands in for a loop that does nothing by itself."""

    def on_readable(self, *_: object) -> "_Reactor":
        return self

    on_writable = call_later = on_readable

    def cancel(self) -> None:
        """Nothing is under way."""


class _Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost: list[str] = []
        self._backlogs: list[Backlog] = []
        self._listeners: dict[str, socket.socket] = {}
        self.fleet = Fleet(
            _Reactor(),
            folder / "routes.json",
            on_frame=lambda *_: None,
            on_lost=lambda link: self.lost.append(link.path),
            on_look=lambda _: None,
        )

    def listen(self, name: str) -> str:
        path = str(self.folder / name)
        if not Path(f"{path}.backlog").exists():
            self._backlogs.append(Backlog(path, create=True))
        self._listeners[path] = listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        return path

    def route(self, *paths: str) -> None:
        version = VersionRoute("AVAILABLE", paths, class_names=("cat", "dog"))
        write_routes(self.folder / "routes.json", Routes({"pets": ModelRoute(1, {1: version})}))

    def linked(self) -> dict[str, Link]:
        """After another look."""
        self.fleet.follow()
        return {link.path: link for link in self.fleet.accepting("pets", 1)}

    def close(self) -> None:
        self.fleet.close()
        for one in (*self._listeners.values(), *self._backlogs):
            one.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[_Bench]:
    """A fleet whose looks the test takes."""
    made = _Bench(tmp_path)
    yield made
    made.close()


def test_an_engine_that_refuses_at_first_is_tried_again(bench: _Bench):
    """The table need not change for that."""
    late = str(bench.folder / "late")
    bench.route(late)
    assert not bench.linked()
    assert not bench.linked()
    bench.listen("late")
    assert set(bench.linked()) == {late}


def test_an_engine_that_hung_up_and_still_listens_is_linked_again(bench: _Bench):
    """As long as it is listed."""
    path = bench.listen("engine")
    bench.route(path)
    first = bench.linked()[path]
    first._lose()  # what its reader does at the end of the stream
    assert bench.lost == [path]
    assert bench.linked()[path] is not first


def test_one_that_is_listed_again_while_it_owed_something_is_linked_again(bench: _Bench):
    """It was not to be asked any more, and was hung up on when its last job ended."""
    path, other = bench.listen("engine"), bench.listen("other")
    bench.route(path, other)
    link = bench.linked()[path]
    link.jobs[1] = object()
    bench.route(other)
    assert set(bench.linked()) == {other}
    bench.route(path, other)
    assert set(bench.linked()) == {other}
    link.jobs.clear()
    bench.fleet.retire(link)
    assert set(bench.linked()) == {path, other}


def test_nothing_is_connected_while_the_table_stays(bench: _Bench, monkeypatch: pytest.MonkeyPatch):
    """A look costs one stat."""
    path = bench.listen("engine")
    bench.route(path)
    link = bench.linked()[path]
    monkeypatch.setattr(Fleet, "_connect", lambda _: pytest.fail("looked for engines"))
    assert bench.linked() == {path: link}
