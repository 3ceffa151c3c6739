"""Every HTTP request becomes an exchange: its id is honoured or made, and stands in the answer, whatever that is."""

from collections.abc import Callable, Iterable
from typing import Any

from service.exchange import Observer, is_request_id
from service.metrics import count_request

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def observed(application: Application, observer: Observer) -> Application:
    """Wraps a WSGI application. It sees only ids that can be used, as if there had been no others.

    Args:
        application: whose answers are complete when it begins to answer, as Flask's are.
        observer: this process's.
    """

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request_id: str = environ.get("HTTP_X_REQUEST_ID", "")
        if request_id and not is_request_id(request_id):
            del environ["HTTP_X_REQUEST_ID"]
            request_id = ""
        exchange = observer.begin(
            "http",
            f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}",
            request_id,
            traceparent=environ.get("HTTP_TRACEPARENT", ""),
            tracestate=environ.get("HTTP_TRACESTATE", ""),
        )

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:  # noqa: ANN401 - WSGI's
            headers.append(("X-Request-Id", exchange.request_id))
            count_request("http", status[:3])
            exchange.end(status[:3], failed=status >= "4")
            return start_response(status, headers, *more)

        return application(environ, start)

    return call
