"""The page at `/`, and the training report of each version: files that a browser asks for.

The page speaks to the same HTTP interface as everybody else; nothing here knows of images or answers.
"""

from pathlib import Path
from typing import Final

from flask import Flask, Response, send_from_directory

from service.classifier import Classifier
from service.errors import ModelNotFound
from service.manifest import EXTRA
from service.settings import Settings

_STATIC: Final = Path(__file__).parent / "static"
_PAGE: Final = "index.html"
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing that the service has not sent."""

_REPORT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox allow-popups"
"""A report comes from a file beside the model: it is shown, but no script in it runs."""


def add_page(app: Flask, classifier: Classifier, settings: Settings) -> None:
    """Adds the paths of the page to the application."""

    @app.get("/")
    def page() -> Response:
        return _file(_STATIC, _PAGE, _PAGE_POLICY)

    @app.get("/<any('page.css', 'page.js', 'docs.css'):name>")
    def asset(name: str) -> Response:
        return _file(_STATIC, name, _PAGE_POLICY)

    @app.get("/reports/<model>/<int:version>/")
    def report(model: str, version: int) -> Response:
        # only what the routing table knows becomes part of a path
        known = classifier.routes.states(model, version)
        folder = settings.models / model / str(version) / EXTRA / "report"
        if version not in known or not (folder / _PAGE).is_file():
            raise ModelNotFound(f"no report of version {version} of {model!r} is here")
        return _file(folder, _PAGE, _REPORT_POLICY)


def protect(response: Response, policy: str = _PAGE_POLICY) -> Response:
    """Says to a browser what the page may load: by default, nothing that the service has not sent."""
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _file(folder: Path, name: str, policy: str) -> Response:
    return protect(send_from_directory(folder, name, max_age=0), policy)
