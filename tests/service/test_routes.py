"""service/routes.py: the routing table survives its file, and resolves what clients ask for."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequest, ModelNotFound, Unavailable
from service.routes import ModelRoute, Routes, VersionRoute, read_routes, write_routes

_VERSIONS = st.builds(
    VersionRoute,
    st.sampled_from(["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]),
    st.lists(st.text(max_size=8), max_size=3).map(tuple),
    st.text(max_size=8),
    st.text(max_size=8),
)
_TABLES = st.builds(
    Routes,
    st.dictionaries(
        st.text(max_size=8),
        st.builds(
            ModelRoute,
            st.integers(0, 2**62),
            st.dictionaries(st.integers(1, 2**62), _VERSIONS, max_size=3),
            st.dictionaries(st.text(max_size=8), st.integers(1, 2**62), max_size=3),
            st.floats(0, 1),
            st.text(max_size=8),
        ),
        max_size=3,
    ),
    st.booleans(),
    st.integers(0, 1000),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Where the table is written."""
    return tmp_path_factory.mktemp("routes") / "routes.json"


@given(_TABLES)
def test_what_is_read_is_what_was_written(path: Path, table: Routes) -> None:
    """Any table, with any text in it, comes back equal."""
    write_routes(path, table)
    assert read_routes(path) == table
    assert [file.name for file in path.parent.iterdir()] == ["routes.json"]


def test_no_file_is_an_empty_table(tmp_path: Path) -> None:
    """A front that is faster than the supervisor finds no models, not an error."""
    assert read_routes(tmp_path / "routes.json") == Routes()


@pytest.fixture
def table():
    """Two models: cats with a live version 2 beside others, dogs with none."""
    cats = {
        1: VersionRoute("UNLOADING"),
        2: VersionRoute("AVAILABLE", ("a", "b")),
        3: VersionRoute("LOADING"),
        4: VersionRoute("AVAILABLE", ("c",)),
    }
    return Routes({"cats": ModelRoute(2, cats), "dogs": ModelRoute(0, {1: VersionRoute("END", error="broken")})})


def test_version_0_is_the_live_one(table: Routes) -> None:
    """No version asked: the live one answers, though a larger one is available."""
    assert table.resolve("cats", 0) == ("cats", 2)


def test_a_pinned_version_that_is_available_answers(table: Routes) -> None:
    """A version that is asked for and serves is taken."""
    assert table.resolve("cats", 4) == ("cats", 4)


@pytest.mark.parametrize("version", [1, 3, 5], ids=["unloading", "loading", "unknown"])
def test_a_pinned_version_that_does_not_serve_is_not_found(table: Routes, version: int) -> None:
    """The message names the versions that do serve."""
    with pytest.raises(ModelNotFound, match=rf"no version {version} of 'cats' is served; there are: \[2, 4\]"):
        table.resolve("cats", version)


def test_no_name_is_the_only_model(table: Routes) -> None:
    """With one model its name may be left out; with two the error names them."""
    assert Routes({"cats": table.models["cats"]}).resolve("", 0) == ("cats", 2)
    with pytest.raises(ModelNotFound, match="expected a model name, got none; there are: cats, dogs"):
        table.resolve("", 0)


def test_an_unknown_name_is_not_found(table: Routes) -> None:
    """The message names the models that there are."""
    with pytest.raises(ModelNotFound, match="no model 'bird'; there are: cats, dogs"):
        table.resolve("bird", 0)


def test_a_model_without_a_live_version_is_unavailable(table: Routes) -> None:
    """It may be there soon: worth another try."""
    with pytest.raises(Unavailable, match="no version of 'dogs' can answer at present"):
        table.resolve("dogs", 0)


def test_an_empty_table_is_unavailable() -> None:
    """Before anything is loaded, no name is unknown yet."""
    with pytest.raises(Unavailable, match="no model is loaded yet"):
        Routes().resolve("cats", 0)


def test_sockets_of_what_is_not_served(table: Routes) -> None:
    """Unknown models and versions have no sockets; known ones theirs."""
    assert table.sockets("cats", 2) == ("a", "b")
    assert table.sockets("cats", 9) == ()
    assert table.sockets("bird", 1) == ()


@pytest.fixture
def canary():
    """Version 2 is live, 3 is the canary for a tenth of the requests; 4 has a label and is loading, 5 is gone."""
    versions = {
        1: VersionRoute("END", error="a golden differs"),
        2: VersionRoute("AVAILABLE", ("a",)),
        3: VersionRoute("AVAILABLE", ("b",)),
        4: VersionRoute("LOADING"),
    }
    return Routes({"cats": ModelRoute(2, versions, {"canary": 3, "next": 4, "gone": 5}, 0.1)})


def test_a_label_names_a_version(canary: Routes) -> None:
    """`stable` is the live version whether the operator named one or not; the others are what the table says."""
    assert canary.resolve("cats", label="canary") == ("cats", 3)
    assert canary.resolve("", label="stable") == ("cats", 2)
    assert {canary.resolve("cats", label="stable") for _ in range(200)} == {("cats", 2)}


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"label": "beta"}, ModelNotFound, "no label 'beta' of 'cats'; there are: canary, gone, next, stable"),
        ({"label": "next"}, Unavailable, "version 4 of 'cats', labelled 'next', cannot answer: it is LOADING"),
        ({"label": "gone"}, Unavailable, "version 5 of 'cats', labelled 'gone', cannot answer: it is not published"),
        ({"label": "stable", "version": 2}, InvalidRequest, "expected a version or a label, got both: 2 and 'stable'"),
    ],
    ids=["unknown", "loading", "not published", "both"],
)
def test_a_label_that_cannot_be_served_is_refused(canary: Routes, asked, error, message: str) -> None:
    """An unknown label is not found; one whose version cannot answer yet is worth another try."""
    with pytest.raises(error) as refused:
        canary.resolve("cats", **asked)
    assert str(refused.value) == message


def test_the_canary_answers_its_share(canary: Routes) -> None:
    """Of 4000 requests about a tenth, with ids and without (six standard deviations: 114), and no others."""
    for ids in ([""] * 4000, [f"request-{number}" for number in range(4000)]):
        answered = [canary.resolve("cats", request_id=one)[1] for one in ids]
        assert set(answered) == {2, 3}
        assert abs(answered.count(3) - 400) < 114


@given(st.text())
def test_the_same_request_id_is_always_answered_by_the_same_version(request_id: str) -> None:
    """A request that is tried again does not jump between versions; any text will do as an id."""
    both = {2: VersionRoute("AVAILABLE"), 3: VersionRoute("AVAILABLE")}
    routes = Routes({"cats": ModelRoute(2, both, {"canary": 3}, 0.5)})
    if request_id:
        assert len({routes.resolve("cats", request_id=request_id) for _ in range(10)}) == 1


def test_a_canary_that_cannot_answer_gets_nothing() -> None:
    """All of the requests are the live version's then; a version that is asked for is never replaced by the canary."""
    live = VersionRoute("AVAILABLE")
    loading = Routes({"cats": ModelRoute(2, {2: live, 3: VersionRoute("LOADING")}, {"canary": 3}, 1.0)})
    assert loading.resolve("cats") == ("cats", 2)
    ready = Routes({"cats": ModelRoute(2, {2: live, 3: live}, {"canary": 3}, 1.0)})
    assert (ready.resolve("cats"), ready.resolve("cats", 2)) == (("cats", 3), ("cats", 2))


def test_states_of_versions_are_told(canary: Routes) -> None:
    """All versions in order, or the one that a number or a label names, refused ones with their reason."""
    assert {number: one.state for number, one in canary.states("cats").items()} == {
        1: "END",
        2: "AVAILABLE",
        3: "AVAILABLE",
        4: "LOADING",
    }
    assert canary.states("", 1)[1].error == "a golden differs"
    assert list(canary.states("cats", label="stable")) == [2]
    assert list(canary.states("cats", label="next")) == [4]


@pytest.mark.parametrize(
    ("model", "asked"),
    [("dogs", {}), ("cats", {"version": 9}), ("cats", {"label": "beta"}), ("cats", {"label": "gone"})],
    ids=["model", "version", "label", "label of what is not there"],
)
def test_states_of_what_is_not_there_are_not_found(canary: Routes, model: str, asked) -> None:
    """Neither an unknown model nor an unknown version has a state, nor has anything in an empty table."""
    for table in (canary, Routes()):
        with pytest.raises(ModelNotFound):
            table.states(model, **asked)
