"""The dashboard and the alert rules in docs/ ask for what the service exposes: every metric and label exists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.pictures import plain
from tests.running import Service

_DOCS = Path(__file__).resolve().parent.parent / "docs"
_SCRAPED = {"instance", "job", "le"}
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


def _documented() -> dict[str, set[str]]:
    """The labels of every metric in docs/operations.md."""
    rows = re.findall(r"^\| `(graft_\w+)` \|([^|]*)\|", (_DOCS / "operations.md").read_text(encoding="utf-8"), re.M)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def _expressions() -> Iterator[str]:
    dashboard = json.loads((_DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    rules = (_DOCS / "alerts.yml").read_text(encoding="utf-8")
    found = re.findall(r"^ +expr: (\|\n(?: {10,}.*\n)+|.+\n)", rules, re.M)
    assert len(found) == rules.count("- alert:")
    yield from found


@pytest.mark.parametrize("expression", list(_expressions()))
def test_what_is_asked_for_exists(expression: str) -> None:
    """Metrics are documented ones; what they are selected and grouped by are labels of theirs."""
    documented = _documented()
    asked = set(re.findall(r"graft_\w+", expression))
    assert asked
    names = {name if name in documented else _SUFFIX.sub("", name) for name in asked}
    assert names <= documented.keys()
    for name, selectors in re.findall(r"(graft_\w+)(?:\{([^}]*)\})?", expression):
        labels = documented[name if name in documented else _SUFFIX.sub("", name)]
        assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selectors)) <= labels | _SCRAPED, name
    common = set.intersection(*(documented[name] for name in names))
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouped)) <= common | _SCRAPED


def test_the_service_exposes_what_is_documented(service: Service) -> None:
    """After a good and a bad request every metric but the cache's is there, with exactly the documented labels."""
    assert service.classify(plain("red")).status == 200
    assert service.classify(b"text").status == 415
    documented = _documented()
    seen = set()
    for family in text_string_to_metric_families(service.get("/metrics").body.decode()):
        for one in family.samples:
            name = one.name if one.name in documented else _SUFFIX.sub("", one.name)
            assert set(one.labels) - {"le"} == documented[name], one
            seen.add(name)
    assert documented.keys() - seen <= {"graft_cached_images_total"}
