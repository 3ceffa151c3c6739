"""The dashboard and the alert rules in docs/ are PromQL that asks for what the service exposes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.pictures import plain
from tests.running import Service

_DOCS = Path(__file__).resolve().parent.parent / "docs"
_SCRAPED = {"instance", "job", "le"}
_SUFFIX = re.compile(r"_(bucket|sum|count)$")
_COUNTED = ("_total", "_bucket", "_sum", "_count")


def _documented() -> dict[str, set[str]]:
    """The labels of every metric in docs/operations.md."""
    rows = re.findall(r"^\| `(graft_\w+)` \|([^|]*)\|", (_DOCS / "operations.md").read_text(encoding="utf-8"), re.M)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def _expressions() -> Iterator[str]:
    dashboard = json.loads((_DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m")  # Grafana's own; PromQL has no variables
    rules = yaml.safe_load((_DOCS / "alerts.yml").read_text(encoding="utf-8"))
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])


def _parts(expression: str) -> list[Any]:
    """Every node of an expression."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), lambda node: found.append(node) or True)
    return found


@pytest.mark.parametrize("expression", list(_expressions()))
def test_what_is_asked_for_exists(expression: str) -> None:
    """It parses; metrics are documented ones; what they are selected and grouped by are labels of theirs."""
    documented = _documented()
    parts = _parts(expression)
    selectors = [
        (one, isinstance(around, promql_parser.MatrixSelector))
        for around, one in zip([None, *parts], parts, strict=False)
        if isinstance(one, promql_parser.VectorSelector)
    ]
    assert selectors
    common = set(_SCRAPED)
    for one, is_range in selectors:
        name = one.name if one.name in documented else _SUFFIX.sub("", one.name)
        assert name in documented
        assert {matcher.name for matcher in one.matchers.matchers} <= documented[name] | _SCRAPED
        assert one.name.endswith(_COUNTED) == is_range, "what is counted means something only as a rate"
        common |= documented[name]
    sums = [one for one in parts if isinstance(one, promql_parser.AggregateExpr)]
    groups = [set(one.modifier.labels) for one in sums if one.modifier]
    assert all(group <= common for group in groups)
    if any(isinstance(one, promql_parser.BinaryExpr) for one in parts):
        assert len(set(map(frozenset, groups))) <= 1, "two sides match by the same labels"


def test_every_alert_says_what_it_means() -> None:
    """Each has a severity and a text, and what the text names of labels is left by the expression."""
    rules = yaml.safe_load((_DOCS / "alerts.yml").read_text(encoding="utf-8"))
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}
        named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        groups = [one for one in _parts(rule["expr"]) if isinstance(one, promql_parser.AggregateExpr)]
        left = set(groups[0].modifier.labels) if groups else set().union(*_documented().values())
        assert named <= left, rule["alert"]


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
