"""The client over HTTP: `POST /classify`, on connections that are kept."""

import contextlib
import json
import socket
import threading
import urllib.parse
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from service.client.base import ActivationMap, Ask, Client, ClientError, Prediction, Refused, Retry, Unanswered
from service.errors import BY_CODE, GraftError, ImageError, RequestTooLarge

if TYPE_CHECKING:
    from http.client import HTTPConnection

_BUSY: Final = (429, 502, 503, 504)
"""Overloaded, not ready, too slow; or a proxy that says so of a service that is being restarted."""

_LONGEST_ASKED_S: Final = 60.0
_CONNECT_S: Final = 5.0
_NO_URL: Final = "expected a URL like http://localhost:8501, got {!r}"


class HttpClient(Client):
    """Talks to `POST /classify`; a connection per thread that asks at the same time.

    Args:
        url: scheme, host and port, such as "http://localhost:8501".
        timeout_s: seconds until a call is given up, all tries together.
        retry: how to try again after 429, 502, 503, 504, or no answer.

    Raises:
        ClientError: not such a URL.
    """

    def __init__(self, url: str, timeout_s: float = 60.0, retry: Retry | None = None) -> None:
        super().__init__(timeout_s, retry or Retry())
        import http.client  # noqa: PLC0415 - gRPC users do not pay for it

        self._http = http.client
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            raise ClientError(_NO_URL.format(url)) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ClientError(_NO_URL.format(url))
        self._kind = self._http.HTTPSConnection if parts.scheme == "https" else self._http.HTTPConnection
        self._host, self._port = parts.hostname, port
        self._path = parts.path.rstrip("/") + "/classify"
        self._url = url
        self._lock = threading.Lock()  # guards the two below
        self._idle: list[HTTPConnection] = []
        self._busy: set[HTTPConnection] = set()

    def _hang_up(self) -> None:
        """See Client."""
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()
            for connection in self._busy:
                if isinstance(connection.sock, socket.socket):
                    with contextlib.suppress(OSError):  # it may be closed already
                        connection.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it

    def _try(self, images: Sequence[tuple[str, bytes]], ask: Ask, timeout_s: float) -> list[Prediction]:
        """See Client."""
        asked = {"model": ask.model, "version": ask.version, "label": ask.label, "top_k": ask.top_k}
        asked["activation_map"] = int(ask.activation_map)
        query = urllib.parse.urlencode({name: value for name, value in asked.items() if value or name == "top_k"})
        headers = {"X-Request-Timeout-Ms": str(max(1, int(timeout_s * 1000)))}
        if ask.bulk:
            headers["X-Request-Priority"] = "bulk"
        if len(images) == 1:
            headers["Content-Type"], body = "application/octet-stream", images[0][1]
        else:
            boundary = uuid.uuid4().hex
            headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
            body = _multipart([data for _, data in images], boundary)
        status, retry_after_s, content = self._post(f"{self._path}?{query}", body, headers, timeout_s)
        overloaded = status == HTTPStatus.TOO_MANY_REQUESTS
        try:
            answer: Any = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            message = f"{self._url} answered {status} with something that is not JSON"
            if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # a proxy's, which has a limit of its own
                raise Refused(f"{RequestTooLarge.code}: {message}", RequestTooLarge.code)
            raise Unanswered(message, retry_after_s, overloaded=overloaded) if status in _BUSY else Refused(message)
        results = answer.get("results")
        if not isinstance(results, list) or len(results) != len(images):
            too_large = status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            code = str(answer.get("code") or (RequestTooLarge.code if too_large else ""))
            message = f"{code or status}: {answer.get('detail', content[:200])}"
            if status in _BUSY:
                raise Unanswered(message, retry_after_s, overloaded=overloaded)
            raise Refused(message, code)
        if status in _BUSY:  # every image failed for the same reason
            raise Unanswered(_error(results[0]), retry_after_s, overloaded=overloaded)
        if all("error" in result for result in results):
            code = results[0]["error"]["code"]
            if not issubclass(BY_CODE.get(code, GraftError), ImageError):  # it is no image's fault
                raise Refused(_error(results[0]), code)
        return [_prediction(answer, result, name) for result, (name, _) in zip(results, images, strict=True)]

    def _post(self, path: str, body: bytes, headers: dict[str, str], timeout_s: float) -> tuple[int, float, bytes]:
        """Returns status, Retry-After in seconds, and body."""
        while True:
            connection, used = self._take(timeout_s)
            try:
                if connection.sock is None:
                    self._open(connection, timeout_s)
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                content = response.read()
            except (OSError, self._http.HTTPException) as error:
                self._drop(connection)
                # a server may hang up on an idle connection at any time; that is no failed try
                if used and isinstance(error, ConnectionError):
                    continue
                raise Unanswered(f"no answer from {self._url}: {error or type(error).__name__}") from error
            except BaseException:
                self._drop(connection)
                raise
            if response.will_close:
                self._drop(connection)
            else:
                self._give_back(connection)
            return response.status, _seconds(response.headers.get("Retry-After", "")), content

    def _take(self, timeout_s: float) -> "tuple[HTTPConnection, bool]":
        """A connection, and whether it was used before."""
        with self._lock:
            if self._closed.is_set():
                raise Unanswered("the client was closed")
            used = bool(self._idle)
            connection = self._idle.pop() if used else self._kind(self._host, self._port)
            self._busy.add(connection)
        connection.timeout = timeout_s
        if connection.sock:
            connection.sock.settimeout(timeout_s)
        return connection, used

    def _open(self, connection: "HTTPConnection", timeout_s: float) -> None:
        """Connects, within a few seconds: nothing can hang up meanwhile, so that is how long closing may take."""
        connection.timeout = min(timeout_s, _CONNECT_S)
        connection.connect()
        if self._closed.is_set():
            raise Unanswered("the client was closed")
        connection.sock.settimeout(timeout_s)

    def _give_back(self, connection: "HTTPConnection") -> None:
        with self._lock:
            self._busy.discard(connection)
            if not self._closed.is_set():
                self._idle.append(connection)
                return
        connection.close()

    def _drop(self, connection: "HTTPConnection") -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()


def _multipart(images: Sequence[bytes], boundary: str) -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'.encode("ascii")
    parts = [part for data in images for part in (head, data, b"\r\n")]
    return b"".join([*parts, f"--{boundary}--\r\n".encode("ascii")])


def _prediction(answer: dict[str, Any], result: dict[str, Any], filename: str) -> Prediction:
    if "error" in result:
        return Prediction(filename, error=_error(result))
    top = [(one["label"], one["score"]) for one in result["top"]]
    seen = result.get("activation_map")
    return Prediction(
        filename,
        result["label"],
        result["score"],
        result["unknown"],
        top,
        answer["model"],
        answer["version"],
        activation_map=ActivationMap(seen["values"], **seen["region_px"]) if seen else None,
    )


def _error(result: dict[str, Any]) -> str:
    return f"{result['error']['code']}: {result['error']['detail']}"


def _seconds(text: str) -> float:
    """Retry-After in seconds; 0 for the form with a date, which our service does not send."""
    return min(_LONGEST_ASKED_S, float(text)) if text.isascii() and text.isdigit() else 0.0
