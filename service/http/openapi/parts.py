"""What the descriptions of all paths are made of, and the errors: written by the tables that the answers come from."""

import inspect
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from service.errors import GraftError, Unauthenticated

Json = dict[str, Any]
Statuses = Mapping[type[GraftError], HTTPStatus]
"""The status of every error that a client can meet."""

URL: Final = "http://localhost:8501"
"""Of the examples; /docs shows its own address instead."""

RETRY: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Statuses that say when to try again."""

_PRIORITY: Final[Json] = {"enum": ["interactive", "bulk"], "default": "interactive"}
TERMS: Final[list[Json]] = [
    {
        "name": "priority",
        "in": "query",
        "description": "`bulk` runs only while nobody else waits.",
        "schema": _PRIORITY,
    },
    {
        "name": "X-Request-Priority",
        "in": "header",
        "description": "The same as a header; the query comes first.",
        "schema": _PRIORITY,
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "After how many milliseconds the answer is of no use any more.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10**9},
    },
    {
        "name": "X-Request-Id",
        "in": "header",
        "description": "A name for the request. Comes back in the answer and stands in the fronts' log lines; "
        "it also decides whether the canary answers, where neither version nor label is given.",
        "schema": {"type": "string"},
    },
]
"""Parameters of every path that classifies; see service/terms.py."""

_WERKZEUG: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
"""Statuses that Flask gives before any path of ours is reached. Their code is their name."""


def reference(name: str, kind: str = "schemas") -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def parameter(name: str, text: str, schema: Json, example: object = None, *, where: str = "query") -> Json:
    """A parameter; those of a path are required."""
    one: Json = {"name": name, "in": where, "description": text, "schema": schema}
    if where == "path":
        one["required"] = True
    if example is not None:
        one["example"] = example
    return one


def closed(**properties: Json) -> Json:
    """An object that has these properties, all of them and no others."""
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }


def answer(text: str, schema: Json, media: str = "application/json", example: object = None) -> Json:
    """A response with a body."""
    content: Json = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"description": text, "content": {media: content}}


def operation(tag: str, name: str, summary: str, curl: str, responses: Json, **more: object) -> Json:
    """An operation with an example as a command line."""
    return {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        **more,
        "responses": responses,
        "x-codeSamples": [{"lang": "Shell", "label": "curl", "source": curl}],
    }


def with_photo(before: str, after: str, address: str) -> str:
    """A command line that sends a photo in base64 inside JSON; as an argument it could have 128 KiB at most."""
    json = f"{{ printf '{before}'; base64 < photo.jpg; printf '{after}'; }}"  # curl takes the line ends out
    return f"{json} | curl -H 'Content-Type: application/json' -d @- {address}"


def problem_responses(statuses: Statuses) -> Json:
    """The components: one response for every status, with every code that comes under it."""
    found: Json = {}
    for status in sorted({*statuses.values(), *_WERKZEUG}):
        errors = [one for one in statuses if statuses[one] == status]
        codes = [one.code for one in errors]
        lines = [f"`{one.code}`: {sentence(one)}" for one in errors]
        if status in _WERKZEUG:
            codes.append(code_of(status))
            lines.append(f"`{codes[-1]}`: {status.description or status.phrase}.")
        schema = {"allOf": [reference("Problem"), {"properties": {"code": {"enum": codes}}}]}
        found[problem_name(status)] = _error(" ".join(lines), status, schema, "application/problem+json")
    return found


def problems(*chosen: HTTPStatus) -> Json:
    """References to the components that `problem_responses` makes."""
    return {str(int(status)): reference(problem_name(status), "responses") for status in sorted(set(chosen))}


def problem_name(status: HTTPStatus) -> str:
    """The component for a status."""
    return status.phrase.replace(" ", "").replace("-", "")


def code_of(status: HTTPStatus) -> str:
    """The code of a status that Flask gave."""
    return status.phrase.upper().replace(" ", "_")


def foreign_errors(statuses: Mapping[HTTPStatus, Iterable[type[GraftError]]], schema: str) -> Json:
    """The errors of another protocol, in its shape.

    Args:
        statuses: what comes under which status.
        schema: the component that says what an error looks like there.
    """
    return {
        str(int(status)): _error(
            " ".join(map(sentence, errors)) or f"{status.description or status.phrase}.",
            status,
            reference(schema),
            "application/json",
        )
        for status, errors in sorted(statuses.items())
    }


def sentence(error: type[GraftError]) -> str:
    """What an error means: the first line of its docstring."""
    return str(inspect.getdoc(error)).partition("\n")[0]


def retry_header(status: HTTPStatus) -> Json:
    """The header of statuses that say when to try again; none for others."""
    required = {"description": "Seconds.", "required": True, "schema": {"type": "integer"}}
    return {"Retry-After": required} if status in RETRY else {}


def by_status(statuses: Statuses) -> dict[HTTPStatus, list[type[GraftError]]]:
    """The table turned round, without what only /admin answers."""
    found: dict[HTTPStatus, list[type[GraftError]]] = {}
    for error, status in statuses.items():
        if error is not Unauthenticated:
            found.setdefault(status, []).append(error)
    return found


def _error(text: str, status: HTTPStatus, schema: Json, media: str) -> Json:
    response = answer(text, schema, media)
    response["headers"] = retry_header(status)
    if status == HTTPStatus.UNAUTHORIZED:
        response["headers"] = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
    return response
