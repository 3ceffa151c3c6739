"""What schemathesis has to know of requests: of images a schema can only say that they are files."""

import base64

import schemathesis
from hypothesis import strategies

from service.readiness import PROBE_IMAGE

_FILES = strategies.sampled_from([PROBE_IMAGE, PROBE_IMAGE + b"\0"])

schemathesis.openapi.format("image-base64", _FILES.map(lambda file: base64.b64encode(file).decode()))
schemathesis.openapi.format("binary", _FILES)
schemathesis.openapi.media_type("image/*", _FILES)
schemathesis.openapi.media_type("application/octet-stream", _FILES)


@schemathesis.hook
def map_query(_, query):
    """A version and a label exclude each other, which OpenAPI cannot say of parameters."""
    if query and "label" in query:
        query.pop("version", None)
    return query


@schemathesis.hook
def filter_case(_, case):
    """A header that the document does not name is no mistake: HTTP ignores it.

    Schemathesis knows, but not beside a header that is a number. Such a request asks for its answer within 1 ms, too,
    and is refused for that, or, on a fast machine, not.
    """
    return not any(name.startswith("x-schemathesis-unknown") for name in case.headers or ())
