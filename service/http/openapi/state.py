"""The service's state and its pages, described."""

from http import HTTPStatus
from typing import Final

from service.http.openapi.parts import URL, Json, answer, closed, operation, parameter, problems, reference

_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1}


def paths() -> Json:
    """Every path for probes and for people."""
    found = {
        "/healthz": {
            "get": operation(
                "State",
                "healthz",
                "Whether the process answers",
                f"curl {URL}/healthz",
                {"200": answer("It does.", closed(live={"const": True}))},
            )
        },
        "/readyz": {"get": _readyz()},
        "/metrics": {
            "get": operation(
                "State",
                "metrics",
                "Counters and histograms for Prometheus",
                f"curl {URL}/metrics",
                {"200": answer("Prometheus' text format, version 0.0.4.", {"type": "string"}, "text/plain")},
            )
        },
        "/reports/{model}/{version}/": {"get": _report()},
    }
    for path, kind, name, text in (
        ("/", "text/html", "page", "The page: drop an image, see what it is"),
        ("/docs", "text/html", "docs", "This description, to read"),
        ("/openapi.json", "application/json", "openapi", "This description, for programs"),
        ("/page.css", "text/css", "style", "How the pages look"),
        ("/page.js", "text/javascript", "script", "What the page does"),
        ("/docs.css", "text/css", "docsStyle", "How the description looks"),
    ):
        schema: Json = {"type": "object"} if kind == "application/json" else {"type": "string"}
        found[path] = {
            "get": operation("Pages", name, text, f"curl {URL}{path}", {"200": answer("The file.", schema, kind)})
        }
    return found


def schemas() -> Json:
    """The components that these paths speak of."""
    text = {"type": "string"}
    return {
        "State": {
            "type": "object",
            "required": ["ready", "draining", "models", "grpc_port"],
            "properties": {
                "ready": {"type": "boolean", "description": "Every model that is live has just answered an image."},
                "draining": {"type": "boolean"},
                "grpc_port": {"type": "integer"},
                "models": {"type": "object", "additionalProperties": reference("ModelState")},
            },
        },
        "ModelState": {
            "type": "object",
            "required": ["live", "versions"],
            "properties": {
                "live": {"type": "integer", "description": "The version that answers by default; 0 for none."},
                "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
                "canary_share": _SHARE,
                "error": text,
                "versions": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "required": ["state"],
                        "properties": {
                            "state": {"enum": ["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                            "engine": text,
                            "engines": {"type": "integer", "description": "Its processes."},
                            "error": {**text, "description": "Why it is not served."},
                        },
                    },
                },
            },
        },
    }


def _readyz() -> Json:
    return operation(
        "State", "readyz", "Whether the service can answer, and what every version is doing",
        f"curl {URL}/readyz",
        {
            "200": answer("Ready.", reference("State")),
            "503": answer("Not ready: loading, draining, or no model answers.", reference("State")),
        },
    )  # fmt: skip


def _report() -> Json:
    return operation(
        "Pages", "report", "The training report of a version",
        f"curl {URL}/reports/pets/1/",
        {"200": answer("The report.", {"type": "string"}, "text/html")} | problems(HTTPStatus.NOT_FOUND),
        parameters=[
            parameter("model", "The model.", {"type": "string"}, "pets", where="path"),
            parameter("version", "The version.", {"type": "integer", "minimum": 0}, 1, where="path"),
        ],
    )  # fmt: skip
