"""service/client.py: both transports give the same predictions; the command line says what happened."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest

from protos.classifier_pb2 import ClassifyResponse, LabelScore, Result
from protos.classifier_pb2_grpc import ImageClassifierServicer, add_ImageClassifierServicer_to_server
from service.client import Client, ClientError, GrpcClient, HttpClient
from tests.pictures import encode, photo, plain
from tests.running import Service

_ROOT = Path(__file__).resolve().parents[2]
_TRANSPORTS = ("http", "grpc")


@pytest.fixture
def connect() -> Iterator[Callable[[str, str], Client]]:
    """Makes clients by transport and address, and hangs up afterwards."""
    clients: list[HttpClient | GrpcClient] = []

    def begin(transport: str, address: str) -> Client:
        clients.append(HttpClient(address) if transport == "http" else GrpcClient(address))
        return clients[-1]

    yield begin
    for client in clients:
        client.close()


@pytest.fixture(params=_TRANSPORTS)
def client(request, service, connect):
    """A client of the shared service, over either transport."""
    return connect(request.param, getattr(service, request.param))


def test_one_image(client: Client) -> None:
    """Label, score, labels best first, model and version."""
    (one,) = client.classify([("a.jpg", encode(photo(1)))])
    assert (one.filename, one.label, one.unknown, one.model, one.version) == ("a.jpg", "green", False, "pets", 1)
    assert [label for label, _ in one.top] == ["green", "red", "grey", "blue"]
    assert one.score == one.top[0][1] == pytest.approx(0.866, abs=0.01)
    assert one.error == ""


def test_transports_agree(service: Service, connect) -> None:
    """The same predictions over both, good and bad images alike, as far as JSON shows digits."""
    images = [(f"{seed}.jpg", encode(photo(seed))) for seed in range(3)] + [("text", b"text"), ("none", b"")]
    over_http, over_grpc = (connect(one, getattr(service, one)).classify(images) for one in _TRANSPORTS)
    for left, right in zip(over_http, over_grpc, strict=True):
        assert (left.filename, left.label, left.error) == (right.filename, right.label, right.error)
        assert left.score == pytest.approx(right.score, abs=1e-6)


def test_many_images_in_one_request(client: Client) -> None:
    """One prediction per image, in order; names of any kind come back as they were given."""
    names = ["plain", "größe 猫.png", 'quo"te', "new\r\nline", "per%20cent", "a/b\\c"]
    colours = ["red", "green", "blue", "grey", "red", "green"]
    found = client.classify([(name, plain(colour)) for name, colour in zip(names, colours, strict=True)])
    assert [(one.filename, one.label) for one in found] == list(zip(names, colours, strict=True))


def test_an_image_that_contains_a_boundary_is_sent_whole(client: Client) -> None:
    """Dashes and line breaks in an image are no end of it."""
    image = plain("red") + b"\r\n--boundary--\r\n" * 3
    assert client.classify([("a", image), ("b", plain("blue"))])[1].label == "blue"


def test_top_k_model_and_version_are_sent(client: Client) -> None:
    """Each of them reaches the service."""
    (one,) = client.classify([("a", plain("red"))], model="pets", version=1, top_k=2)
    assert len(one.top) == 2
    with pytest.raises(ClientError, match="MODEL_NOT_FOUND: no model 'cats'; there are: pets"):
        client.classify([("a", plain("red"))], model="cats")
    with pytest.raises(ClientError, match="MODEL_NOT_FOUND: no version 5"):
        client.classify([("a", plain("red"))], version=5)


@pytest.mark.parametrize(("data", "code"), [(b"text", "UNSUPPORTED_FORMAT"), (b"", "EMPTY_IMAGE")])
def test_a_bad_image_is_a_prediction_with_an_error(client: Client, data: bytes, code: str) -> None:
    """Alone, too, it is the image's error and no exception."""
    (one,) = client.classify([("bad", data)])
    assert (one.filename, one.label) == ("bad", "")
    assert one.error.startswith(f"{code}: expected ")


def test_a_wrong_request_is_an_exception(client: Client) -> None:
    """It is nobody's image that is at fault."""
    with pytest.raises(ClientError, match="INVALID_REQUEST: expected top_k"):
        client.classify([("a", plain("red"))], top_k=-1)
    with pytest.raises(ClientError, match="expected 1 to 20 images"):
        client.classify([("a", plain("red"))] * 21)


def test_a_request_that_is_too_large_is_not_tried_again(client: Client, monkeypatch) -> None:
    """It would be too large the next time."""
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it was tried again"))
    with pytest.raises(ClientError, match=r"REQUEST_TOO_LARGE|RESOURCE_EXHAUSTED"):
        client.classify([("a", b"x" * 400_000)] * 6)


@pytest.mark.parametrize("url", ["localhost:8501", "ftp://localhost", "http://", ""])
def test_a_wrong_url_says_what_was_expected(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ClientError, match="expected a URL like http://localhost:8501, got"):
        HttpClient(url)


# -- trying again, with servers that refuse at first


class _Refusing:
    """Counts requests and says which to refuse."""

    def __init__(self) -> None:
        self.refusals: list[int] = []
        self.asked = 0

    def next(self) -> int:
        """An HTTP status; 200 when all refusals are used up."""
        self.asked += 1
        return self.refusals.pop(0) if self.refusals else 200


@pytest.fixture
def refusing_http() -> Iterator[tuple[str, _Refusing]]:
    """An HTTP service that refuses at first; 0 hangs up without an answer."""
    state = _Refusing()
    good = {"model": "m", "version": 3, "results": [{"label": "x", "score": 1, "unknown": False, "top": []}]}
    refusal = {"code": "UNAVAILABLE", "detail": "not yet"}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = state.next()
            self.close_connection = not status
            if status:
                body = b"<html>" if status == 502 else json.dumps(good if status == 200 else refusal).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", state
        server.shutdown()
        thread.join()


@pytest.fixture
def refusing_grpc() -> Iterator[tuple[str, _Refusing]]:
    """A gRPC service that refuses at first."""
    state = _Refusing()
    refusals = {
        503: (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
        429: (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
        500: (grpc.StatusCode.INTERNAL, "INTERNAL"),
    }

    class Servicer(ImageClassifierServicer):
        def Classify(self, request, context):  # noqa: ARG002, N802 - the protocol's
            status = state.next()
            if status != 200:
                context.set_trailing_metadata((("graft-error-code", refusals[status][1]),))
                context.abort(refusals[status][0], "not yet")
            return ClassifyResponse(
                model="m", version=3, results=[Result(label="x", score=1, top=[LabelScore(label="x", score=1)])]
            )

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        add_ImageClassifierServicer_to_server(Servicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", state
        server.stop(0).wait()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """How long the client would have waited; it does not."""
    found: list[float] = []
    monkeypatch.setattr("service.client.time.sleep", found.append)
    return found


@pytest.mark.parametrize("transport", _TRANSPORTS)
@pytest.mark.parametrize("refusals", [[503], [429], [503, 429, 503]], ids=str)
def test_a_busy_service_is_asked_again(
    request, connect, waits: list[float], transport: str, refusals: list[int]
) -> None:
    """Overloaded or not ready: up to three more tries, each after twice the wait of the last."""
    address, state = request.getfixturevalue(f"refusing_{transport}")
    state.refusals = list(refusals)
    (one,) = connect(transport, address).classify([("a", b"a")])
    assert (one.label, one.version, state.asked) == ("x", 3, len(refusals) + 1)
    assert waits == [0.25, 0.5, 1.0][: len(refusals)]


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_a_service_that_stays_busy_is_given_up(request, connect, waits: list[float], transport: str) -> None:
    """After four tries the refusal is the answer."""
    address, state = request.getfixturevalue(f"refusing_{transport}")
    state.refusals = [503] * 9
    with pytest.raises(ClientError, match="UNAVAILABLE: not yet"):
        connect(transport, address).classify([("a", b"a")])
    assert (state.asked, len(waits)) == (4, 3)


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_an_error_that_would_come_again_is_not_tried_again(request, connect, waits, transport: str) -> None:
    """An internal error is told at once."""
    address, state = request.getfixturevalue(f"refusing_{transport}")
    state.refusals = [500]
    with pytest.raises(ClientError, match="not yet"):
        connect(transport, address).classify([("a", b"a")])
    assert (state.asked, waits) == (1, [])


def test_a_lost_connection_is_made_anew(refusing_http, connect, waits: list[float]) -> None:
    """The server hung up, as servers do with idle connections: the same client goes on."""
    address, state = refusing_http
    client = connect("http", address)
    assert client.classify([("a", b"a")])[0].label == "x"
    state.refusals = [0]
    assert client.classify([("a", b"a")])[0].label == "x"
    assert (state.asked, len(waits)) == (3, 1)


def test_an_answer_that_is_no_json_is_an_error(refusing_http, connect) -> None:
    """A proxy's page, say: the client names the status and shows no trace."""
    address, state = refusing_http
    state.refusals = [502]
    with pytest.raises(ClientError, match="answered 502 with something that is not JSON"):
        connect("http", address).classify([("a", b"a")])


@pytest.mark.parametrize(("transport", "address"), [("http", "http://127.0.0.1:1"), ("grpc", "127.0.0.1:1")])
def test_nobody_there_is_an_error(connect, waits: list[float], transport: str, address: str) -> None:
    """Nothing listens: a ClientError that names the address, after the tries."""
    with pytest.raises(ClientError, match=r"127\.0\.0\.1:1"):
        connect(transport, address).classify([("a", b"a")])
    assert len(waits) == 3


# -- the command line


@pytest.fixture
def images(tmp_path):
    """Two good image files and one bad."""
    for colour in ("red", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(plain(colour))
    (tmp_path / "bad.txt").write_text("text", encoding="utf-8")
    return tmp_path


def _command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.client", *map(str, arguments)]
    environment = {"PYTHONPATH": str(_ROOT), "PATH": "", "GRPC_VERBOSITY": "NONE"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _where(service: Service, transport: str) -> list[str]:
    return ["--url", service.http] if transport == "http" else ["--grpc", service.grpc]


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_the_command_prints_a_line_per_image(service: Service, images: Path, transport: str) -> None:
    """File, labels with scores, model and version; exit code 0."""
    done = _command(images, "red.png", "blue.png", *_where(service, transport), "--top-k", 2)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("red.png: red 1.000, grey 0.000")
    assert first.endswith("(pets/1)")
    assert second.startswith("blue.png: blue 1.000, ")


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_the_command_goes_on_after_an_image_that_failed(service: Service, images: Path, transport: str) -> None:
    """Unreadable for the service or for the client itself: said in its line, the others answered, exit code 1."""
    done = _command(images, "bad.txt", "nowhere.png", "red.png", *_where(service, transport))
    assert done.returncode == 1
    bad, nowhere, good = done.stdout.splitlines()
    assert bad.startswith("bad.txt: UNSUPPORTED_FORMAT: expected a JPEG")
    assert nowhere == "nowhere.png: cannot read the file: No such file or directory"
    assert good.startswith("red.png: red")


def test_the_command_prints_json(service: Service, images: Path) -> None:
    """One object per line, with every field of a prediction."""
    done = _command(images, "red.png", "bad.txt", "--json", "--url", service.http)
    good, bad = map(json.loads, done.stdout.splitlines())
    assert (good["label"], good["model"], good["version"], good["error"]) == ("red", "pets", 1, "")
    assert bad["error"].startswith("UNSUPPORTED_FORMAT")
    assert set(good) == set(bad)


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_the_command_says_when_nothing_could_be_asked(service: Service, images: Path, transport: str) -> None:
    """An unknown model: on standard error, exit code 2."""
    done = _command(images, "red.png", *_where(service, transport), "--model", "cats")
    assert (done.returncode, done.stdout) == (2, "")
    assert "MODEL_NOT_FOUND: no model 'cats'; there are: pets" in done.stderr
    assert done.stderr.startswith("error: ")


def test_the_command_says_when_it_is_called_wrongly(images: Path) -> None:
    """No image, or both transports at once: argparse's message, exit code 2."""
    assert _command(images).returncode == 2
    both = _command(images, "red.png", "--url", "http://x", "--grpc", "x:1")
    assert both.returncode == 2
    assert "not allowed with argument" in both.stderr
