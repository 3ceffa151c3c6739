"""The light client: image files in, labels out, over HTTP or gRPC. Imports neither TensorFlow nor numpy.

    python -m service.client photo.jpg --url http://localhost:8501
    python -m service.client photo.jpg --grpc localhost:8500

From Python: `HttpClient("http://localhost:8501").classify([("photo.jpg", data)])`, or GrpcClient the same way.
"""

import argparse
import http.client
import json
import sys
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from service.errors import BY_CODE, GraftError, ImageError, Overloaded, Unavailable

_TRIES: Final = 4
_FIRST_WAIT_S: Final = 0.25
_RETRIED: Final = (429, 503)
_RETRIED_CODES: Final = (Overloaded.code, Unavailable.code)


class ClientError(Exception):
    """The service could not be reached or refused the whole request."""


@dataclass(frozen=True)
class Prediction:
    """What the service says of one image.

    Attributes:
        filename: as given.
        label: the best label; empty when the image failed.
        score: of the best label, 0 to 1.
        unknown: the score is too low for any of the classes.
        top: (label, score), best first.
        model: who answered.
        version: of the model.
        error: "CODE: detail" when this image failed; else empty.
    """

    filename: str
    label: str = ""
    score: float = 0.0
    unknown: bool = False
    top: Sequence[tuple[str, float]] = ()
    model: str = ""
    version: int = 0
    error: str = ""


class Client(Protocol):
    """Either transport."""

    def close(self) -> None:
        """Hangs up."""

    def classify(
        self, images: Sequence[tuple[str, bytes]], *, model: str = "", version: int = 0, top_k: int = 5
    ) -> list[Prediction]:
        """Classifies images in one request.

        Args:
            images: (filename, whole file).
            model: name; empty for the only one.
            version: number; 0 for the live one.
            top_k: labels per image.

        Returns:
            One prediction per image, in order.

        Raises:
            ClientError: no answer, or the whole request was refused.
        """


class HttpClient:
    """Talks to `POST /classify` on one kept-alive connection.

    Args:
        url: scheme, host and port, such as "http://localhost:8501".
        timeout_s: seconds to wait for one answer.
    """

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ClientError(f"expected a URL like http://localhost:8501, got {url!r}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_s)
        self._path = parts.path.rstrip("/") + "/classify"
        self._url = url

    def close(self) -> None:
        """Hangs up."""
        self._connection.close()

    def classify(
        self, images: Sequence[tuple[str, bytes]], *, model: str = "", version: int = 0, top_k: int = 5
    ) -> list[Prediction]:
        """See Client. Waits and tries again when the service is overloaded or not ready (429, 503)."""
        query = urllib.parse.urlencode({"model": model, "version": version, "top_k": top_k})
        boundary = uuid.uuid4().hex
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        status, body = self._post(f"{self._path}?{query}", _multipart(images, boundary), headers)
        try:
            answer: dict[str, Any] = json.loads(body)
        except ValueError:
            raise ClientError(f"{self._url} answered {status} with something that is not JSON") from None
        if "results" not in answer:
            raise ClientError(f"{answer.get('code', status)}: {answer.get('detail', body[:200])}")
        return [
            _from_json(answer, result, filename)
            for result, (filename, _) in zip(answer["results"], images, strict=True)
        ]

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        for wait_s in _waits():
            try:
                self._connection.request("POST", path, body, headers)
                response = self._connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if wait_s is None:
                    raise ClientError(f"no answer from {self._url}: {error}") from error
            else:
                if response.status not in _RETRIED or wait_s is None:
                    return response.status, content
            time.sleep(wait_s)
        raise AssertionError("the last try returns or raises. This is a bug.")


class GrpcClient:
    """Talks to graft.v1.ImageClassifier.

    Args:
        address: host and port, such as "localhost:8500".
        timeout_s: seconds to wait for one answer.
    """

    def __init__(self, address: str, timeout_s: float = 60.0) -> None:
        import grpc  # noqa: PLC0415 - HTTP users do not pay for it

        from protos import classifier_pb2, classifier_pb2_grpc  # noqa: PLC0415

        self._grpc: Any = grpc
        self._messages = classifier_pb2
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(address, options=unlimited)
        self._stub = classifier_pb2_grpc.ImageClassifierStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._address = address
        self._timeout_s = timeout_s

    def close(self) -> None:
        """Hangs up."""
        self._channel.close()

    def classify(
        self, images: Sequence[tuple[str, bytes]], *, model: str = "", version: int = 0, top_k: int = 5
    ) -> list[Prediction]:
        """See Client. Waits and tries again when the service is overloaded or not ready."""
        messages = self._messages
        request = messages.ClassifyRequest(
            model=model,
            version=version,
            top_k=top_k,
            images=[messages.Image(data=data, filename=filename) for filename, data in images],
        )
        for wait_s in _waits():
            try:
                answer = self._stub.Classify(request, timeout=self._timeout_s)
                break
            except self._grpc.RpcError as error:
                code = _code(error)
                # the only image's error is the call's; a request that is wrong itself is not an image's error
                if len(images) == 1 and issubclass(BY_CODE.get(code, GraftError), ImageError):
                    return [Prediction(images[0][0], error=f"{code}: {error.details()}")]
                if code not in _RETRIED_CODES or wait_s is None:
                    raise ClientError(f"{self._address}: {code}: {error.details()}") from error
                time.sleep(wait_s)
        return [
            Prediction(filename, error=f"{result.error.code}: {result.error.detail}")
            if result.HasField("error")
            else Prediction(
                filename,
                result.label,
                result.score,
                result.unknown,
                [(one.label, one.score) for one in result.top],
                answer.model,
                answer.version,
            )
            for result, (filename, _) in zip(answer.results, images, strict=True)
        ]


def main() -> int:
    """The command line; returns the exit code: 0 all answered, 1 some image failed, 2 nothing could be asked."""
    parser = argparse.ArgumentParser(
        prog="python -m service.client", description="Asks a running Graft service what is on images."
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--url", default="http://localhost:8501", help="of the service's HTTP front (default: %(default)s)"
    )
    where.add_argument("--grpc", metavar="HOST:PORT", help="ask the gRPC front instead")
    parser.add_argument("--model", default="", help="name of the model (default: the only one)")
    parser.add_argument("--version", type=int, default=0, metavar="N", help="version to ask (default: the live one)")
    parser.add_argument("--top-k", type=int, default=3, metavar="N", help="labels per image (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per image")
    options = parser.parse_args()
    failed = False
    try:
        client: Client = GrpcClient(options.grpc) if options.grpc else HttpClient(options.url)
        for path in options.images:
            prediction = _ask(client, path, options)
            failed = failed or bool(prediction.error)
            print(json.dumps(asdict(prediction)) if options.json else _line(prediction), flush=True)  # noqa: T201
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 1 if failed else 0


def _ask(client: Client, path: Path, options: argparse.Namespace) -> Prediction:
    try:
        data = path.read_bytes()
    except OSError as error:
        return Prediction(str(path), error=f"cannot read the file: {error.strerror}")
    return client.classify([(str(path), data)], model=options.model, version=options.version, top_k=options.top_k)[0]


def _line(prediction: Prediction) -> str:
    if prediction.error:
        return f"{prediction.filename}: {prediction.error}"
    best = ", ".join(f"{label} {score:.3f}" for label, score in prediction.top)
    unknown = "unknown; nearest: " if prediction.unknown else ""
    return f"{prediction.filename}: {unknown}{best}   ({prediction.model}/{prediction.version})"


def _waits() -> Iterator[float | None]:
    """Seconds to wait after each failed try; None after the last."""
    yield from (_FIRST_WAIT_S * 2**number for number in range(_TRIES - 1))
    yield None


def _multipart(images: Sequence[tuple[str, bytes]], boundary: str) -> bytes:
    parts = []
    for filename, data in images:
        quoted = urllib.parse.quote(filename, safe=" /.-_")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{quoted}"\r\n\r\n'
        parts += [head.encode("ascii"), data, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode("ascii")])


def _from_json(answer: dict[str, Any], result: dict[str, Any], filename: str) -> Prediction:
    if "error" in result:
        return Prediction(filename, error=f"{result['error']['code']}: {result['error']['detail']}")
    top = [(one["label"], one["score"]) for one in result["top"]]
    return Prediction(
        filename, result["label"], result["score"], result["unknown"], top, answer["model"], answer["version"]
    )


def _code(error: Any) -> str:  # noqa: ANN401 - grpc.RpcError, not imported here
    metadata = dict(error.trailing_metadata() or ())
    return str(metadata.get("graft-error-code", error.code().name))


if __name__ == "__main__":
    sys.exit(main())
