"""The documentation is complete: what the code has, the pages describe, and what they name exists."""

import re
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from service import metrics
from service.errors import BY_CODE
from service.routes import Routes
from service.settings import Settings

_ROOT = Path(__file__).resolve().parent.parent
_OPERATIONS = (_ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
_PAGES = [_ROOT / "README.md", _ROOT / "CHANGELOG.md", *sorted((_ROOT / "docs").glob("*.md"))]


def _rows(column: str) -> set[str]:
    """What stands in backticks in the first column of the table whose first heading is `column`."""
    table = re.search(rf"^\| {column} \|.*\n((?:\|.*\n)+)", _OPERATIONS, re.MULTILINE)
    assert table
    return set(re.findall(r"^\| `([^`]+)`", table.group(1), re.MULTILINE))


def test_every_setting_is_documented_and_nothing_else():
    """The settings table has exactly the flags of `python -m service`."""
    assert _rows("flag") == {"--config"} | {"--" + one.name.replace("_", "-") for one in fields(Settings)}


@pytest.mark.parametrize(
    "one", [one for one in fields(Settings) if one.default not in (Path(), "")], ids=lambda one: one.name
)
def test_every_default_is_the_documented_one(one):
    """The settings table says the default that the code has."""
    row = re.search(rf"^\| `--{one.name.replace('_', '-')}` \| `?([^|`]+)`? \|", _OPERATIONS, re.MULTILINE)
    assert row
    assert type(one.default)(row.group(1).strip()) == one.default


def test_every_error_is_documented_and_nothing_else():
    """The error table has exactly the codes that a client can meet."""
    at_load = {"BROKEN_VERSION"}
    assert _rows("code") == BY_CODE.keys() - at_load
    assert all(code in _OPERATIONS for code in at_load)


def test_every_metric_is_documented_and_nothing_else():
    """The metrics table has exactly the names that /metrics can show."""
    ours = [family for family in REGISTRY.collect() if family.name.startswith("graft_")]
    ours += metrics.RoutesCollector(Routes()).collect()
    assert _rows("name") == {family.name + ("_total" if family.type == "counter" else "") for family in ours}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    """Links and pictures within the project exist, and anchors name a heading."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file) if file else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_command_names_a_module_that_exists(page: Path):
    """`python -m …` in the documentation can be typed."""
    for module in re.findall(r"python -m ([a-z_.]+[a-z_])", page.read_text(encoding="utf-8")):
        path = _ROOT.joinpath(*module.split("."))
        ours = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
        assert ours or (not _ROOT.joinpath(module.split(".")[0]).exists() and find_spec(module)), module


def test_every_client_in_the_table_has_the_locked_version():
    """What docs/clients.md says was run is what the environments have; curl is the system's."""
    table = (_ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    locks = "".join((_ROOT / "locks" / f"{name}.lock").read_text(encoding="utf-8") for name in ("all", "clients"))
    rows = re.findall(r"^\| [^|`]*`([\w.-]+)(?:\[\w+\])?`[^|]* \| ([\d.]+) \|", table, re.MULTILINE)
    assert len(rows) == 10
    assert [row for row in rows if f"\n{row[0]}=={row[1]} " not in locks] == []
