"""How every process of the service writes its log: text or JSON on standard error, one line per event.

A line that belongs to a request has the request's id, and where there are traces the trace's.
"""

import json
import logging
import sys
import time
from typing import Any, Final

FORMATS: Final = ("text", "json")


def configure_log(level: str, form: str) -> None:
    """Sets up the log of this process.

    Args:
        level: least severe line to print, such as "info".
        form: one of FORMATS.
    """
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[lines], force=True)


class _Text(logging.Formatter):
    """`TIME LEVEL LOGGER MESSAGE name=value ...`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        pairs = "".join(f" {name}={_one_line(value)}" for name, value in _fields(record).items())
        return super().formatMessage(record) + pairs


class _Json(logging.Formatter):
    """One object per line; `time` is RFC 3339 in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{second}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    exchange = _present_exchange()
    if exchange is not None:
        fields["request_id"] = exchange.request_id
        if exchange.span is not None:
            fields["trace_id"] = f"{exchange.span.get_span_context().trace_id:032x}"
    return fields


def _present_exchange() -> Any:  # noqa: ANN401 - an Exchange, or None
    # only fronts have exchanges; the supervisor and engines do not pay for importing them
    module = sys.modules.get("service.exchange")
    return module.present() if module else None


def _one_line(value: object) -> str:
    """A value that cannot be taken for the beginning of another line or field."""
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)
