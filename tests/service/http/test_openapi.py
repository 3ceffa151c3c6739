"""The description of the HTTP interface has everything that the interface has, and is what the service does."""

import ast
import html
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from werkzeug.routing import Rule

from service.errors import BY_CODE, Unauthenticated
from service.http import tensorflow_serving
from service.http.app import create_app
from service.http.openapi import document
from service.http.reply import STATUS
from service.open_inference import VERSION
from service.settings import Settings

_ROOT = Path(__file__).resolve().parents[3]
_METHODS = {"get", "post", "put", "patch", "delete"}
_CATCH_ALL = {"/v1/<path:_>", "/v2/<path:_>"}
"""What lies below is told apart by the view, or is nothing at all."""


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The document of a service with everything switched on."""
    return document.describe(STATUS, Settings(admin_token_file=tmp_path_factory.mktemp("admin") / "token"))


@pytest.fixture(scope="module")
def rules():
    """Every rule of an application with everything switched on."""

    class Nothing:
        """A classifier and a readiness that nobody asks."""

    return list(create_app(Nothing(), Nothing(), Settings(admin_token_file=Path("token"))).url_map.iter_rules())


def _paths(rule: Rule) -> set[str]:
    """A rule of Flask's as paths of OpenAPI's: `<int:version>` becomes {version}, `<any(a, b):name>` both."""
    paths = {rule.rule}
    if alternatives := re.search(r"<any\(([^)]*)\):\w+>", rule.rule):
        paths = {rule.rule.replace(alternatives[0], one.strip(" '")) for one in alternatives[1].split(",")}
    return {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path) for path in paths}


def test_every_path_and_method_is_described_and_nothing_else(described, rules):
    """What Flask routes and what the document has is the same; paths below /v1 are those that its views can read."""
    served = {
        (path, method.lower())
        for rule in rules
        if rule.rule not in _CATCH_ALL
        for path in _paths(rule)
        for method in rule.methods
        if method.lower() in _METHODS
    }
    written = {(path, method) for path, item in described["paths"].items() for method in item if method in _METHODS}
    below_v1 = {one for one in written if one[0].startswith("/v1/")}
    assert written - below_v1 == served
    places = ("", "/versions/7", "/labels/stable")
    expected = {("/v1/models/pets" + place + more, "get") for place in places for more in ("", "/metadata")}
    expected |= {("/v1/models/pets" + place + more, "post") for place in places for more in (":predict", ":classify")}
    filled = {
        (path.replace("{name}", "pets").replace("{version}", "7").replace("{label}", "stable"), method)
        for path, method in below_v1
    }
    assert filled == expected
    for path, method in filled:
        pattern = tensorflow_serving._STATUS if method == "get" else tensorflow_serving._METHOD
        assert pattern.fullmatch(path)


def test_every_parameter_is_described(described):
    """Those of the paths, and every name that a view looks up in the query or in the headers."""
    for path, item in described["paths"].items():
        named = {one["name"] for one in item.get("parameters", []) if one["in"] == "path"}
        for method in item.keys() & _METHODS:
            own = {one["name"] for one in item[method].get("parameters", []) if one["in"] == "path"}
            assert named | own == set(re.findall(r"{(\w+)}", path)), path
    written = {
        one["name"]
        for item in described["paths"].values()
        for part in (item, *(item[method] for method in item.keys() & _METHODS))
        for one in part.get("parameters", [])
    }
    assert _looked_up() - {"Authorization"} <= written
    assert {"model", "version", "label", "top_k", "priority", "X-Request-Id", "X-Request-Timeout-Ms"} <= _looked_up()


def _looked_up() -> set[str]:
    """Names in `request.args.get(NAME)`, `request.headers.get(NAME)`, `_number(said, NAME)` below service/http."""
    found = set()
    for path in (_ROOT / "service" / "http").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            node.target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            called = isinstance(node, ast.Call) and ast.unparse(node.func)
            looks_up = {f"{whose}.{what}.get" for whose in ("request", "said") for what in ("args", "headers")}
            if called in {*looks_up, "_number"}:
                named = node.args[1 if called == "_number" else 0]
                if isinstance(named, ast.Constant):
                    found.add(named.value)
                elif named.id != "name":  # _number's own look-up
                    found.add(constants[named.id])
    return found


def test_every_error_is_described_under_its_status(described):
    """Codes and statuses are those of the tables, each with its sentence."""
    written = {
        code: (name, one["description"])
        for name, one in described["components"]["responses"].items()
        for code in one["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"]["enum"]
    }
    assert {error.code for error in STATUS} <= written.keys()
    for error, status in STATUS.items():
        assert f"`{error.code}`: {error.__doc__.splitlines()[0]}" in written[error.code][1]
        if error is not Unauthenticated:
            assert str(int(status)) in described["paths"]["/classify"]["post"]["responses"]
    codes = described["components"]["schemas"]["FailedResult"]["properties"]["error"]["properties"]["code"]["enum"]
    assert set(codes) == {error.code for error in STATUS} - {"UNAUTHENTICATED"}
    assert set(codes) <= BY_CODE.keys()


def test_the_limits_are_those_of_the_settings():
    """A client can read from the document what this service takes; without a token it has no /admin."""
    small = document.describe(STATUS, Settings(max_images=7))
    assert small["components"]["schemas"]["Classify"]["properties"]["images"]["maxItems"] == 7
    assert not [path for path in small["paths"] if path.startswith("/admin")]
    assert "securitySchemes" not in small["components"]


def test_the_version_is_the_projects():
    """One version everywhere."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def test_every_reference_leads_somewhere(described):
    """No component is missing, and none is of no use."""
    text = str(described)
    for kind, names in described["components"].items():
        if kind != "securitySchemes":
            used = set(re.findall(rf"#/components/{kind}/(\w+)", text))
            assert used <= names.keys()
            assert kind == "responses" or used == names.keys()
    assert set(re.findall(r"'#/components/(\w+)/", text)) <= {"schemas", "responses"}


def test_the_page_shows_everything_and_loads_nothing_from_elsewhere(service):
    """Every operation is on /docs with its curl line; its policy and its addresses name this service only."""
    page = service.get("/docs")
    assert page.status == 200
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    text = page.body.decode()
    assert "<script" not in text
    assert "style=" not in text
    assert set(re.findall(r'(?:href|src)="([^"#]+)', text)) == {"data:,", "page.css", "docs.css", ".", "openapi.json"}
    for path, item in service.get("/openapi.json").json["paths"].items():
        for method in item.keys() & _METHODS:
            assert f'<div id="{item[method]["operationId"]}"' in text, path
            assert "curl " in item[method]["x-codeSamples"][0]["source"]
    targets = set(re.findall(r'href="#([^"]+)"', text))
    assert targets <= set(re.findall(r'id="([^"]+)"', text))
    assert 'href="docs"' in service.get("/").body.decode()


def test_the_examples_name_the_address_that_was_asked(service):
    """Scheme, host and port of the request, as text; nothing else of it reaches the page."""
    assert f"curl {service.http}/healthz" in service.get("/docs").body.decode()
    elsewhere = service.request("GET", "/docs", headers={"Host": "photos.example"}).body.decode()
    assert "curl http://photos.example/healthz" in elsewhere
    assert "localhost" not in elsewhere
    nowhere = service.request("GET", "/docs", headers={"Host": "<script>"}).body.decode()
    assert "curl http://localhost:8501/healthz" in nowhere
    assert "<script" not in nowhere


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_with_base64_take_a_large_photo(service, tmp_path):
    """Each of them, run as it stands on the page: a photo that is too large for an argument of a command."""
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg", quality=95)
    assert (tmp_path / "photo.jpg").stat().st_size > 200_000
    page = service.get("/docs").body.decode()
    lines = [line for line in html.unescape(re.sub(r"<[^>]+>", "\n", page)).splitlines() if "base64 <" in line]
    assert len(lines) == 9
    for line in lines:
        command = [shutil.which("bash") or "bash", "-c", line.replace("| curl", "| curl -sSf")]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, line + ran.stderr + ran.stdout
        assert re.search(r"results|predictions|outputs", ran.stdout), line
