"""`/openapi.json` and `/docs`: the description of the interface, made once, when the front starts.

The examples of /docs name the address that it was asked for at.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flask import Flask, Response, request
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from service.http.openapi.parts import URL, Json
from service.http.page import protect

_TEMPLATES: Final = Path(__file__).parent / "templates"


def add_documentation(app: Flask, document: Json) -> None:
    """Adds the paths to the application.

    Args:
        app: the application.
        document: an OpenAPI document.
    """
    text = json.dumps(document, indent=1)
    html = render(document)

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(text, content_type="application/json")

    @app.get("/docs")
    def docs() -> Response:
        # a host that cannot be one is empty
        here = html.replace(URL, escape(request.host_url.rstrip("/"))) if request.host else html
        return protect(Response(here, content_type="text/html; charset=utf-8"))


def render(document: Json) -> str:
    """An OpenAPI document as a page that needs no script."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True)
    environment.filters["marked"] = _marked
    resolve: Callable[[Json], Json] = lambda node: _resolve(document, node)  # noqa: E731 - typed
    return environment.get_template("docs.html").render(document=document, resolve=resolve)


def _marked(text: str) -> Markup:
    """Text whose words in backticks are code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just here


def _resolve(document: Json, node: Json) -> Json:
    """What a reference leads to; anything else as it is."""
    if "$ref" not in node:
        return node
    found = document
    for name in node["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found
