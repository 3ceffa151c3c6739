"""service/routes.py: the routing table survives its file, and resolves what clients ask for."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ModelNotFound, Unavailable
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
        st.builds(ModelRoute, st.integers(0, 2**62), st.dictionaries(st.integers(1, 2**62), _VERSIONS, max_size=3)),
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
