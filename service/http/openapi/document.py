"""The whole OpenAPI document of a service, with what this service has: /admin only where there is a token."""

from typing import Final

from service.admin import is_possible
from service.http.openapi import admin, classification, foreign, state
from service.http.openapi.parts import Json, Statuses, problem_responses
from service.open_inference import VERSION
from service.settings import Settings

_TAGS: Final = {
    "Classification": "Images in, labels and scores out.",
    "State": "For probes and Prometheus.",
    "TensorFlow Serving": "TensorFlow Serving's REST interface, its errors included: its clients work unchanged.",
    "Open Inference Protocol": "Version 2, as of KServe and Triton, its errors included: their clients work unchanged.",
    "Pages": "For people.",
    "Admin": "Which versions are served; takes the admin token.",
}


def describe(statuses: Statuses, settings: Settings) -> Json:
    """Builds the document.

    Args:
        statuses: the HTTP status of every error that a client can meet.
        settings: the limits, and whether there is /admin.
    """
    paths = classification.paths(statuses, settings) | state.paths()
    paths |= foreign.tensorflow_serving_paths() | foreign.open_inference_paths()
    components: Json = {
        "schemas": classification.schemas(statuses, settings) | state.schemas() | foreign.schemas(settings.max_images),
        "responses": problem_responses(statuses),
    }
    if is_possible(settings):
        paths |= admin.paths()
        components["schemas"] |= admin.schemas()
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    tags = {one["tags"][0] for path in paths.values() for name, one in path.items() if name != "parameters"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Graft",
            "version": VERSION,
            "description": "Classifies images. Errors outside images are problem documents (RFC 9457) with a `code`; "
            "statuses 429 and 503 say in `Retry-After` when to try again.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name in tags],
        "paths": paths,
        "components": components,
    }
