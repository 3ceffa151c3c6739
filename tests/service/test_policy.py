"""service/policy.py and service/models.py: what operators want, read, changed one by one, and never half written."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import admin
from service import models as command
from service.errors import InvalidRequest, ModelNotFound
from service.policy import (
    FILE,
    BrokenPolicy,
    Change,
    Policy,
    change_policy,
    format_policy,
    merge_policy,
    parse_policy,
    read_policy,
)
from service.routes import Routes
from service.settings import Settings

_ROOT = Path(__file__).resolve().parents[2]
_VERSIONS = st.integers(1, 10**18 - 1)
_LABELS = st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,62}", fullmatch=True), _VERSIONS, max_size=3)
_POLICIES = st.one_of(
    st.builds(Policy, st.integers(1, 100), st.just(()), _LABELS),
    st.builds(
        Policy,
        st.just(1),
        st.sets(_VERSIONS, min_size=1, max_size=3).map(lambda some: tuple(sorted(some))),
        _LABELS.map(lambda labels: labels | {"canary": 7}),
        st.floats(0, 1),
    ),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models directory with "pets" 1, 2, 3 and "plants" 5."""
    for name, number in (("pets", 1), ("pets", 2), ("pets", 3), ("plants", 5)):
        (tmp_path / name / str(number)).mkdir(parents=True)
    return tmp_path


@given(_POLICIES)
def test_what_is_written_is_what_is_read(policy: Policy) -> None:
    """Any policy that is valid comes back equal."""
    assert parse_policy(format_policy(policy)) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("3", "expected an object with the keys versions, labels, canary_share, got 3"),
        ('{"label": {}}', "expected an object with the keys versions, labels, canary_share, got the keys 'label'"),
        ('{"versions": 3}', "expected versions to be"),
        ('{"versions": {"latest": 0}}', "expected versions to be"),
        ('{"versions": {"latest": true}}', "expected versions to be"),
        ('{"versions": {"specific": []}}', "expected versions to be"),
        ('{"versions": {"latest": 1, "specific": [1]}}', "expected versions to be"),
        ('{"labels": []}', "expected labels to be an object, got []"),
        ('{"labels": {"": 1}}', "expected a label of letters"),
        ('{"labels": {"a/b": 1}}', "expected a label of letters"),
        ('{"labels": {"stable": "1"}}', "expected label stable to name a version of 1 or more, got '1'"),
        ('{"labels": {"canary": 1}, "canary_share": 1.01}', "expected canary_share to be 0 to 1, got 1.01"),
        ('{"labels": {"canary": 1}, "canary_share": NaN}', "expected canary_share to be 0 to 1, got nan"),
        ('{"labels": {"canary": 1}, "canary_share": "0.1"}', "expected canary_share to be 0 to 1, got '0.1'"),
        ('{"canary_share": 0.1}', "expected the label canary beside a canary_share of 0.1, found none"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    """What was expected and what came, for every mistake that a hand can make."""
    with pytest.raises(BrokenPolicy) as refused:
        parse_policy(text)
    assert message in str(refused.value)


def test_a_file_that_cannot_be_read_is_told_without_its_path(folder: Path) -> None:
    """Not UTF-8, too large, or a folder: the message reaches /readyz."""
    file = folder / "pets" / FILE
    for make in (lambda: file.write_bytes(b"\xff"), lambda: file.write_bytes(b" " * 100_000), file.mkdir):
        file.unlink(missing_ok=True)
        make()
        with pytest.raises(BrokenPolicy) as refused:
            read_policy(folder / "pets")
        assert str(folder) not in str(refused.value)


@pytest.mark.parametrize(
    ("policy", "live", "wanted"),
    [
        (Policy(), 5, [5]),
        (Policy(latest=3), 5, [5, 4, 3]),
        (Policy(latest=9), 5, [5, 4, 3, 1]),
        (Policy(specific=(1, 3)), 3, [3, 1]),
        (Policy(labels={"stable": 3}), 3, [3]),
        (Policy(labels={"stable": 2}), 1, [1]),
        (Policy(labels={"stable": 9}), 5, [5]),
        (Policy(latest=2, labels={"stable": 4, "canary": 5}), 4, [4, 5, 3]),
        (Policy(labels={"canary": 5}), 4, [4, 5]),
        (Policy(labels={"canary": 5, "other": 1}), 4, [4, 5, 1]),
        (Policy(specific=(1, 5), labels={"stable": 4}), 4, [4, 1]),
        (Policy(specific=(5,), labels={"canary": 5}), 5, [5]),
        (Policy(specific=(2,)), 0, []),
    ],
    ids=str,
)
def test_what_a_policy_wants(policy: Policy, live: int, wanted: list[int]) -> None:
    """Of versions 1, 3, 4 and 5: the live one and what is loaded, in that order."""
    assert (policy.live([1, 3, 4, 5]), policy.wanted([1, 3, 4, 5])) == (live, wanted)


def test_a_rollback_goes_one_version_back_and_never_over_the_edge(folder: Path) -> None:
    """Below the live one, leaving out what was refused; where there is nothing below, nothing changes."""

    def back(refused: list[int], to: int = 0) -> int:
        _, after = change_policy(folder, "pets", lambda policy, servable: policy.rolled_back(servable, to), refused)
        return after.live([1, 2, 3])

    assert (back([]), back([]), back([], to=3), back([2])) == (2, 1, 3, 1)
    with pytest.raises(InvalidRequest, match=r"expected a version below 1 to go back to, there are: \[1, 2, 3\]"):
        back([])
    with pytest.raises(InvalidRequest, match="label stable names version 9, which is not published"):
        back([], to=9)
    assert read_policy(folder / "pets") == Policy(labels={"stable": 1})


def test_a_patch_changes_what_it_names() -> None:
    """Labels one by one, null removes, versions whole; what is no policy is refused."""
    policy = Policy(2, (), {"stable": 1, "canary": 3}, 0.5)
    assert merge_policy(policy, {"labels": {"canary": 2, "x": 1}}).labels == {"stable": 1, "canary": 2, "x": 1}
    assert merge_policy(policy, {"labels": {"canary": None}, "canary_share": None}) == Policy(2, (), {"stable": 1})
    assert merge_policy(policy, {"versions": {"specific": [3, 1]}}).specific == (1, 3)
    assert merge_policy(policy, {"versions": None, "labels": None, "canary_share": None}) == Policy()
    for wrong in ({"labels": {"canary": None}}, {"labels": 3}, {"other": 1}, {"canary_share": 2}):
        with pytest.raises(InvalidRequest):
            merge_policy(policy, wrong)


def test_changes_at_once_are_made_one_after_the_other(folder: Path) -> None:
    """Twenty callers put a label each: none is lost."""

    def put(number: int) -> None:
        change_policy(folder, "pets", lambda policy, _: policy.labelled(f"label-{number}", 1 + number % 3))

    with ThreadPoolExecutor(20) as callers:
        list(callers.map(put, range(20)))
    assert read_policy(folder / "pets").labels == {f"label-{number}": 1 + number % 3 for number in range(20)}
    assert [file.name for file in (folder / "pets").iterdir() if file.is_file()] == [FILE]


def test_a_full_disk_leaves_the_old_policy_and_nothing_else(folder: Path) -> None:
    """A command that cannot write says so and ends with 1; what a killed one left behind is no obstacle."""
    change_policy(folder, "pets", lambda policy, _: policy.labelled("stable", 2))
    (folder / "pets" / f".unfinished-{FILE}").write_text('{"labels": {"sta', encoding="ascii")
    before = (folder / "pets" / FILE).read_bytes()
    # no file may grow: as on a full disk, opening succeeds and writing fails
    full = 'ulimit -f 0; exec "$0" -m service.models --models "$1" pin pets 3'
    done = subprocess.run(
        ["/bin/sh", "-c", full, sys.executable, str(folder)], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "serving.json cannot be written, nothing was changed" in done.stderr
    assert (folder / "pets" / FILE).read_bytes() == before
    assert [file.name for file in (folder / "pets").iterdir() if file.is_file()] == [FILE]


def test_several_models_change_together_or_not_at_all(folder: Path) -> None:
    """What one of them cannot do is said with its name, before any other has changed."""
    shutil.copytree(folder / "pets", folder / "cars")
    settings = replace(Settings(), models=folder)

    def labelled(version: int) -> Change:
        return lambda policy, _: policy.labelled("canary", version)

    with pytest.raises(InvalidRequest, match=r"^pets: label canary names version 9, which is not published"):
        admin.change_all(Routes(), settings, {"cars": labelled(1), "pets": labelled(9)})
    assert not (folder / "cars" / FILE).exists()
    admin.change_all(Routes(), settings, {"cars": labelled(1), "pets": labelled(2)})
    assert [read_policy(folder / name).labels for name in ("cars", "pets")] == [{"canary": 1}, {"canary": 2}]


@pytest.mark.parametrize("text", ["0", "-1", "x", "01"])
def test_a_version_is_a_number_from_one_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """`pin NAME 0` is no way to take a pin away."""
    monkeypatch.setattr(sys, "argv", ["models", "--models", str(folder), "pin", "pets", "--", text])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "expected a version number, 1 or more" in capsys.readouterr().err
    assert read_policy(folder / "pets") == Policy()


def test_unknown_models_are_refused(folder: Path) -> None:
    """Also names that would lead out of the directory."""
    for name in ("cats", "../" + folder.name + "/pets", ""):
        with pytest.raises(ModelNotFound):
            change_policy(folder, name, lambda policy, _: policy)


def test_the_commands(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command does what it says, and says what it did."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["models", "--models", str(folder), *words])
        code = command.main()
        said = capsys.readouterr()
        assert (code, said.err) == (0, "") if code == 0 else (1, said.err)
        return said.err or said.out

    assert run("rollback", "pets") == (
        "pets: live 2; loaded 2 of 1, 2, 3; stable 2\n      was: live 3; loaded 3 of 1, 2, 3\n"
    )
    assert "live 1; loaded 1 of" in run("rollback", "pets", "--to", "1")
    assert "live 2; loaded 2 of" in run("pin", "pets", "2")
    assert "live 2; loaded 2, 3 of 1, 2, 3; canary 3; stable 2\n" in run("label", "pets", "canary", "3")
    assert "canary 3; stable 2; the canary answers 10.0%\n" in run("share", "pets", "0.1")
    assert "loaded 1, 2, 3 of" in run("latest", "pets", "2")
    assert "live 2; loaded 1, 2, 3 of" in run("specific", "pets", "1")
    assert "loaded 1, 2 of 1, 2, 3; stable 2\n" in run("unlabel", "pets", "canary").splitlines(keepends=True)[0]
    assert "live 1; loaded 1 of" in run("unpin", "pets")
    assert "live 3; loaded 3 of" in run("latest", "pets", "1")
    assert run("list") == "pets: live 3; loaded 3 of 1, 2, 3\nplants: live 5; loaded 5 of 5\n"
    assert run("pin", "pets", "9").startswith("error: label stable names version 9, which is not published")
    assert run("share", "pets", "0.5").startswith("error: serving.json: expected the label canary")
    assert run("rollback", "plants").startswith("error: expected a version below 5")
    (folder / "pets" / FILE).write_text("{", encoding="ascii")
    assert "pets: serving.json: expected JSON" in run("list")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_is_read_only_is_said(folder: Path) -> None:
    """Models are often mounted so."""
    (folder / "pets").chmod(0o500)
    with pytest.raises(BrokenPolicy, match="cannot be written, nothing was changed: Permission denied"):
        change_policy(folder, "pets", lambda policy, _: policy.labelled("stable", 1))


def test_list_says_that_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty models directory, and one that is not there, as after a slip of the pen."""
    monkeypatch.setattr(sys, "argv", ["models", "--models", str(tmp_path), "list"])
    assert command.main() == 0
    assert capsys.readouterr().out == f"no model in {tmp_path}\n"
    monkeypatch.setattr(sys, "argv", ["models", "--models", str(tmp_path / "absent"), "list"])
    assert command.main() == 1
    assert capsys.readouterr().err == f"error: expected a models directory at {tmp_path / 'absent'}; there is none\n"
