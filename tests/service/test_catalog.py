"""service/catalog.py: from any state, what the operator wants comes about, and somebody answers meanwhile.

Versions are stand-ins that load, fail and drain when the test says so; the directories and serving.json are real.
"""

import errno
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service import catalog
from service.catalog import Catalog
from service.policy import FILE, Policy, format_policy
from service.routes import VersionRoute
from service.settings import Settings


@dataclass(eq=False)
class _Version:
    """What a catalog sees of a version; the test sets `state`, `error` and `lasting`."""

    path: Path
    run_dir: Path
    settings: Settings
    state: str = "LOADING"
    error: str = ""
    lasting: bool = False
    restarts: int = 0
    pids: list[int] = field(default_factory=list)

    def tick(self) -> None:
        pass

    def unload(self) -> None:
        self.state = "UNLOADING"

    def kill(self) -> None:
        self.state = "END"

    def route(self) -> VersionRoute:
        return VersionRoute(self.state, (f"{self.path.name}.sock",) if self.state == "AVAILABLE" else ())


class _Bench:
    """A catalog of the model "pets", its directory, and its versions by number as they were last loaded."""

    def __init__(self, folder: Path, **chosen: object) -> None:
        self.models = folder
        self.now = 1000.0
        self.loaded: list[int] = []
        self.versions: dict[int, _Version] = {}
        self.catalog = self._new(**chosen)

    def _new(self, **chosen: object) -> Catalog:
        settings = replace(Settings(), models=self.models, **({"keep_previous_s": 30.0} | chosen))
        return Catalog(settings, self.models, self._load, lambda: self.now)

    def _load(self, path: Path, run_dir: Path, settings: Settings) -> _Version:
        version = _Version(path, run_dir, settings)
        self.loaded.append(int(path.name))
        self.versions[int(path.name)] = version
        return version

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            (self.models / "pets" / str(number)).mkdir(parents=True)
            (self.models / "pets" / str(number) / "file").write_text("content", encoding="ascii")

    def want(self, text: str | Policy) -> None:
        text = text if isinstance(text, str) else format_policy(text)
        (self.models / "pets").mkdir(exist_ok=True)
        (self.models / "pets" / FILE).write_text(text, encoding="utf-8")

    def look(self, seconds: float = 1.0) -> None:
        """Lets time pass, then looks."""
        self.now += seconds
        self.catalog.scan()
        self.catalog.tick()

    def finish(self, *numbers: int) -> None:
        """Whatever loads has loaded, whatever drains has drained, until nothing happens any more."""
        for _ in range(20):
            self.look(0.2)
            for version in self.versions.values():
                version.state = {"LOADING": "AVAILABLE", "UNLOADING": "END"}.get(version.state, version.state)
        assert not numbers or self.serving == sorted(numbers)

    def fail(self, number: int, *, lasting: bool, error: str = "a golden differs") -> None:
        version = self.versions[number]
        version.state, version.error, version.lasting = "END", error, lasting
        self.look(0.2)

    @property
    def route(self):
        return self.catalog.routes(draining=False).models.get("pets")

    @property
    def live(self) -> int:
        return self.route.live if self.route else 0

    @property
    def states(self) -> dict[int, str]:
        return {number: one.state for number, one in self.route.versions.items()}

    @property
    def serving(self) -> list[int]:
        return sorted(number for number, version in self.versions.items() if version.state == "AVAILABLE")


@pytest.fixture
def bench(tmp_path: Path) -> _Bench:
    """A catalog that looks at an empty directory."""
    return _Bench(tmp_path / "models")


def test_the_highest_version_is_live_and_the_one_before_stays_for_a_while(bench: _Bench) -> None:
    """For --keep-previous-s both are loaded; then the old one drains and its end is told."""
    bench.publish(1)
    bench.finish(1)
    bench.publish(2)
    bench.look()
    assert (bench.states, bench.live) == ({1: "AVAILABLE", 2: "LOADING"}, 1)
    bench.finish(1, 2)
    assert bench.live == 2
    bench.look(31)
    assert bench.states == {1: "UNLOADING", 2: "AVAILABLE"}
    bench.finish(2)
    assert bench.states == {1: "END", 2: "AVAILABLE"}


def test_a_rollback_within_that_time_loads_nothing(bench: _Bench) -> None:
    """The table shows the version before at the next look, 0.2 s later; and it is as quick to come back once more."""
    bench.publish(1, 2)
    bench.want(Policy(labels={"stable": 1}))
    bench.finish(1)
    bench.want(Policy())
    bench.finish(1, 2)
    assert (bench.live, bench.loaded) == (2, [1, 2])
    for live, policy in ((1, Policy(labels={"stable": 1})), (2, Policy())):
        bench.want(policy)
        bench.now += 0.2
        bench.catalog.tick()
        assert (bench.live, bench.loaded) == (live, [1, 2])


def test_a_rollback_later_loads_beside_the_live_version(bench: _Bench) -> None:
    """The live version answers until the one before has proven itself."""
    bench.publish(1, 2)
    bench.finish(2)
    bench.look(100)
    bench.want(Policy(labels={"stable": 1}))
    bench.look()
    assert (bench.live, bench.states) == (2, {1: "LOADING", 2: "AVAILABLE"})
    bench.finish()
    assert bench.live == 1


def test_three_versions_are_never_loaded_for_one(bench: _Bench) -> None:
    """The one that stays goes as soon as a further one loads."""
    bench.publish(1)
    bench.finish(1)
    bench.publish(2)
    bench.finish(1, 2)
    bench.publish(3)
    bench.look()
    assert (bench.live, bench.states) == (2, {1: "UNLOADING", 2: "AVAILABLE", 3: "LOADING"})


def test_versions_load_one_by_one_the_live_one_first(bench: _Bench) -> None:
    """What waits for its turn is told as START."""
    bench.publish(1, 2, 3, 4)
    bench.want(Policy(latest=2, labels={"stable": 2, "canary": 4}, canary_share=0.1))
    bench.look()
    assert bench.states == {1: "START", 2: "LOADING", 4: "START"}
    assert not bench.catalog.settled
    bench.finish(1, 2, 4)
    assert (bench.live, bench.loaded, bench.catalog.settled) == (2, [2, 4, 1], True)
    assert (bench.route.labels, bench.route.canary_share) == ({"canary": 4}, 0.1)


def test_a_version_that_fails_is_refused_and_not_tried_again_until_it_changes(bench: _Bench) -> None:
    """The old one goes on, the reason is told; the repair of any file, even in place, is noticed."""
    bench.publish(1)
    bench.finish(1)
    bench.publish(2)
    bench.look()
    bench.fail(2, lasting=True)
    for _ in range(1000):
        bench.look(10)
    assert (bench.live, bench.loaded) == (1, [1, 2])
    assert bench.route.versions[2] == VersionRoute("END", error="a golden differs")
    (bench.models / "pets" / "2" / "file").write_text("repaired", encoding="ascii")
    bench.finish(1, 2)
    assert (bench.live, bench.route.versions[2].error) == (2, "")


def test_a_repair_while_it_loads_is_noticed(bench: _Bench) -> None:
    """What the directory looked like when loading began is what failed."""
    bench.publish(1)
    bench.look()
    (bench.models / "pets" / "1" / "file").write_text("repaired", encoding="ascii")
    bench.fail(1, lasting=True)
    bench.finish(1)


def test_what_may_be_the_hosts_fault_is_tried_again_less_and_less_often(bench: _Bench) -> None:
    """After 10, 20, 40 ... and at last every 600 seconds, and the live version goes on all the while."""
    bench.publish(1)
    bench.finish(1)
    bench.publish(2)
    bench.look()
    failed_at, waited = bench.now, []
    while len(waited) < 9:
        if bench.versions[2].state == "LOADING":
            bench.fail(2, lasting=False, error="the engine was killed by SIGKILL while loading")
            waited.append(round(bench.now - failed_at))
            failed_at = bench.now
        bench.look(1)
        assert bench.live == 1
    assert waited[1:] == pytest.approx([11, 21, 41, 81, 161, 321, 601, 601], abs=2)
    bench.finish()
    bench.look(700)
    bench.finish()
    assert (bench.live, bench.route.versions[2].error) == (2, "")


def test_removed_versions_and_models_are_unloaded(bench: _Bench) -> None:
    """The live one's directory gone: the one below takes over; the model gone: it is forgotten."""
    bench.publish(1, 2)
    bench.finish(2)
    shutil.rmtree(bench.models / "pets" / "2")
    bench.look()
    assert (bench.live, bench.states) == (2, {1: "LOADING", 2: "AVAILABLE"})
    bench.finish(1)
    assert (bench.live, bench.states) == (1, {1: "AVAILABLE"})
    shutil.rmtree(bench.models / "pets")
    bench.look()
    assert (bench.live, bench.states) == (0, {1: "UNLOADING"})
    bench.finish()
    assert bench.route is None


def test_what_cannot_be_read_is_no_news(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of somebody else's, or a volume that is unmounted: what is served stays, the other models go on."""
    bench.publish(1)
    bench.finish(1)
    with monkeypatch.context() as patched:
        patched.setattr(catalog, "versions", _refuse)
        bench.look()
        assert (bench.live, bench.route.error) == (1, "its folder cannot be read: Permission denied")
    bench.look()
    assert (bench.live, bench.route.error) == (1, "")
    bench.publish(2)
    bench.finish()
    assert bench.live == 2


def test_models_that_are_gone_as_a_whole_change_nothing(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume that is unmounted takes nothing away, not even what the operator wants; nor is a start then complete."""
    bench.publish(1, 2)
    bench.want(Policy(labels={"stable": 1, "canary": 2}))
    bench.finish(1, 2)
    served = bench.catalog.routes(draining=False)
    away = bench.models.rename(bench.models.with_name("away"))
    bench.finish(1, 2)
    assert bench.catalog.routes(draining=False) == served
    assert not bench.catalog.settled
    assert not bench._new().settled
    with monkeypatch.context() as patched:
        bench.models.mkdir()  # the mount point
        patched.setattr(bench.catalog, "_device", -1)
        bench.finish(1, 2)
        assert bench.catalog.routes(draining=False) == served
        bench.models.rmdir()
    away.rename(bench.models)
    bench.want(Policy())
    bench.finish()
    assert bench.live == 2
    assert bench.catalog.settled


def test_what_cannot_be_read_from_the_start_is_waited_for(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whom a killed supervisor left may serve it."""
    bench.publish(1)
    monkeypatch.setattr(catalog, "versions", _refuse)
    bench.look()
    assert bench.route is None
    assert not bench.catalog.settled
    monkeypatch.undo()
    bench.finish(1)
    assert bench.catalog.settled


def test_a_refused_version_that_cannot_be_read_is_no_news(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays refused and takes nothing from the others; what could not be read when it loaded may change later."""
    bench.publish(1)
    bench.finish(1)
    bench.publish(2)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rglob", _stale)
        bench.look()
        bench.fail(2, lasting=True)
        bench.look()
        assert (bench.live, bench.loaded) == (1, [1, 2])
    bench.look()
    assert bench.loaded == [1, 2, 2]
    bench.fail(2, lasting=True)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rglob", _stale)
        bench.publish(3)
        bench.finish()
        assert (bench.live, bench.loaded) == (3, [1, 2, 2, 3])


def _stale(_: Path, __: str) -> list[Path]:
    raise OSError(errno.ESTALE, "Stale file handle")


def _refuse(_: Path) -> list[int]:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_wish_that_cannot_be_fulfilled_takes_nothing_away(bench: _Bench) -> None:
    """The live version goes on when only unpublished ones are wanted, and the table says what is missing."""
    bench.publish(1, 2)
    bench.finish(2)
    bench.want(Policy(specific=(7,), labels={"canary": 9}))
    bench.finish(2)
    assert bench.live == 2
    assert bench.route.error == (
        "label canary names version 9, which is not published; versions names version 7, which is not published"
    )
    bench.want(Policy())
    bench.finish(2)
    assert bench.route.error == ""


def test_a_file_that_cannot_be_understood_changes_nothing(bench: _Bench) -> None:
    """While running, the last policy holds; at a start nothing is loaded, as nobody knows what was turned away from."""
    bench.publish(1, 2)
    bench.want(Policy(labels={"stable": 1}))
    bench.finish(1)
    bench.want('{"labels": {"stable": 1')
    bench.publish(3)
    bench.finish(1)
    assert (bench.live, "expected JSON" in bench.route.error) == (1, True)

    bench.catalog, bench.versions = bench._new(), {}
    bench.finish()
    assert (bench.live, bench.serving, "expected JSON" in bench.route.error) == (0, [], True)
    bench.want(Policy(labels={"stable": 1}))
    bench.finish(1)
    assert (bench.live, bench.route.error) == (1, "")


def test_a_file_that_is_older_than_the_last_one_is_followed(bench: _Bench) -> None:
    """A clock that goes backwards, or a file restored from a backup: what is there now counts."""
    bench.publish(1, 2)
    bench.finish(2)
    bench.want(Policy(labels={"stable": 1}))
    os.utime(bench.models / "pets" / FILE, (1, 1))
    bench.finish()
    assert bench.live == 1
    bench.want(Policy(labels={"stable": 2}))
    os.utime(bench.models / "pets" / FILE, (0, 0))
    bench.finish()
    assert bench.live == 2


_NUMBERS = st.integers(1, 5)
_POLICIES = st.builds(
    Policy,
    st.integers(1, 3),
    st.sets(_NUMBERS, max_size=2).map(lambda some: tuple(sorted(some))),
    st.dictionaries(st.sampled_from(["stable", "canary", "other"]), _NUMBERS),
)


class _AnyOrder(RuleBasedStateMachine):
    """Publishing, removing, wishing, loading, failing, draining and time, in any order.

    Once a model is live it stays so while anything that was published with it is left, no more versions are loaded than
    are wanted and three, and whenever everything has come to rest what is wanted is what is there.
    """

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.bench = _Bench(self.folder / f"models-{len(list(self.folder.iterdir()))}")
        self.bench.models.mkdir()
        self.policy = Policy()

    @rule(number=_NUMBERS)
    def publish(self, number: int) -> None:
        if not (self.bench.models / "pets" / str(number)).exists():
            self.bench.publish(number)

    @rule(number=_NUMBERS)
    def remove(self, number: int) -> None:
        shutil.rmtree(self.bench.models / "pets" / str(number), ignore_errors=True)

    @rule(policy=_POLICIES)
    def want(self, policy: Policy) -> None:
        self.policy = policy
        self.bench.want(policy)

    @rule(seconds=st.sampled_from([0.05, 0.2, 1.0, 40.0, 1000.0]))
    def look(self, seconds: float) -> None:
        before, route = self.bench.live, self.bench.route
        others = [n for n in route.versions if (self.bench.models / "pets" / str(n)).exists()] if route else []
        self.bench.look(seconds)
        assert self.bench.live or not before or before not in others

    @precondition(lambda self: any(one.state == "LOADING" for one in self.bench.versions.values()))
    @rule(fails=st.booleans(), lasting=st.booleans())
    def load(self, fails: bool, lasting: bool) -> None:
        for version in self.bench.versions.values():
            if version.state == "LOADING":
                version.state, version.error, version.lasting = (
                    ("END", "no", lasting) if fails else ("AVAILABLE", "", False)
                )

    @rule()
    def drain(self) -> None:
        for version in self.bench.versions.values():
            version.state = "END" if version.state == "UNLOADING" else version.state

    @rule()
    def rest(self) -> None:
        """Everything is repaired, and comes to rest."""
        for number in list(self.bench.route.versions) if self.bench.route else ():
            file = self.bench.models / "pets" / str(number) / "file"
            if file.exists():
                file.write_text(file.read_text(encoding="ascii") + "+", encoding="ascii")
        self.bench.finish()
        self.bench.look(1000)
        self.bench.finish()
        published = sorted(int(one.name) for one in (self.bench.models / "pets").glob("[0-9]*"))
        wanted = sorted(self.policy.wanted(published))
        target = self.policy.live(published)
        if target:
            assert (self.bench.live, self.bench.serving) == (target, wanted)
        else:
            assert self.bench.serving == sorted({*wanted, self.bench.live} - {0})
            assert self.bench.live in {0, *published}

    @invariant()
    def the_live_version_answers(self) -> None:
        if self.bench.live:
            assert self.bench.route.versions[self.bench.live].state == "AVAILABLE"

    @invariant()
    def one_loads_at_a_time(self) -> None:
        route = self.bench.route
        if route:
            assert [one.state for one in route.versions.values()].count("LOADING") <= 1


def test_any_order_of_events(tmp_path: Path) -> None:
    """See _AnyOrder."""
    _AnyOrder.folder = tmp_path
    _AnyOrder.TestCase.settings = hypothesis_settings(max_examples=60, stateful_step_count=25)
    _AnyOrder.TestCase("runTest").runTest()
