"""service/client: both transports give the same predictions, try again alike, and serve any number of threads."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from PIL import Image

from protos.classifier_pb2 import BULK, INTERACTIVE, ClassifyResponse, LabelScore, Result
from protos.classifier_pb2_grpc import ImageClassifierServicer, add_ImageClassifierServicer_to_server
from service.client import Client, ClientError, GrpcClient, HttpClient, Refused, Retry, Unanswered
from tests.pictures import encode, photo, plain
from tests.running import Service

_TRANSPORTS = ("http", "grpc")


@pytest.fixture
def connect() -> Iterator[Callable[[str, str], Client]]:
    """Makes clients by transport and address, and hangs up afterwards."""
    clients: list[HttpClient | GrpcClient] = []

    def begin(transport: str, address: str, timeout_s: float = 60.0) -> Client:
        make = HttpClient if transport == "http" else GrpcClient
        clients.append(make(address, timeout_s))
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


def test_activation_maps(mapped_service: Service, connect) -> None:
    """Asked for, both transports tell where the label was seen, alike; not asked for, there is none."""
    picture = Image.new("RGB", (320, 160), (90, 90, 90))
    picture.paste((230, 20, 20), (80, 0, 160, 80))
    images = [("corner.png", encode(picture, "PNG")), ("text", b"text")]
    clients = [connect(one, getattr(mapped_service, one)) for one in _TRANSPORTS]
    for found in (client.classify(images, activation_map=True) for client in clients):
        seen = found[0].activation_map
        assert (found[0].label, found[1].activation_map) == ("red", None)
        assert (seen.left, seen.top, seen.width, seen.height) == (80, 0, 160, 160)
        assert [[round(value) for value in row] for row in seen.values] == [[1, 1, 0, 0]] * 2 + [[0, 0, 0, 0]] * 2
    assert clients[0].classify(images)[0].activation_map is None


def test_a_version_without_activation_maps(client: Client) -> None:
    """The whole request is refused, since no image of it can have one."""
    with pytest.raises(Refused, match="NO_ACTIVATION_MAP: expected a version with class activation maps"):
        client.classify([("a", plain("red")), ("b", plain("blue"))], activation_map=True)


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


def test_bad_images_alone_have_each_its_own_error(client: Client) -> None:
    """A request of which nothing can be answered is no failed request either."""
    found = client.classify([("text", b"text"), ("empty", b""), ("more", b"text")])
    assert [one.filename for one in found] == ["text", "empty", "more"]
    assert [one.error.partition(":")[0] for one in found] == ["UNSUPPORTED_FORMAT", "EMPTY_IMAGE", "UNSUPPORTED_FORMAT"]


def test_a_wrong_request_is_an_exception(client: Client) -> None:
    """It is nobody's image that is at fault."""
    with pytest.raises(ClientError, match="INVALID_REQUEST: expected top_k"):
        client.classify([("a", plain("red"))], top_k=-1)
    with pytest.raises(ClientError, match="expected 1 to 20 images"):
        client.classify([("a", plain("red"))] * 21)


def test_a_request_that_is_too_large_is_not_tried_again(client: Client, monkeypatch) -> None:
    """It would be too large the next time."""
    monkeypatch.setattr(Client, "_pause", lambda *_: pytest.fail("it was tried again"))
    with pytest.raises(Refused, match=r"REQUEST_TOO_LARGE|RESOURCE_EXHAUSTED"):
        client.classify([("a", b"x" * 400_000)] * 6)


@pytest.mark.parametrize("url", ["localhost:8501", "ftp://localhost", "http://", "http://a:b", "http://[::1", ""])
def test_a_wrong_url_says_what_was_expected(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ClientError, match="expected a URL like http://localhost:8501, got"):
        HttpClient(url)


# -- trying again, with servers that refuse at first


class _Refusing:
    """Counts requests and says which to refuse."""

    def __init__(self) -> None:
        self.refusals: list[int] = []
        self.retry_after_s = 0
        self.page = b"<html>"
        self.asked = 0
        self.heard: dict[str, str] = {}
        self.hanging = threading.Event()
        self.go_on = threading.Event()

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
            state.heard = dict(self.headers)
            status = state.next()
            if status == 1:
                state.hanging.set()
                state.go_on.wait(60)
                status = 200
            self.close_connection = not status
            if status:
                body = json.dumps(good if status == 200 else refusal).encode()
                body = state.page if status in {413, 502} else body
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if state.retry_after_s:
                    self.send_header("Retry-After", str(state.retry_after_s))
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
        504: (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    }

    class Servicer(ImageClassifierServicer):
        def Classify(self, request, context):  # noqa: N802 - the protocol's
            state.heard = {"remaining": str(context.time_remaining()), "priority": str(request.priority)}
            status = state.next()
            if status == 1:
                state.hanging.set()
                state.go_on.wait(60)
                status = 200
            if status != 200:
                pushback = (("grpc-retry-pushback-ms", str(state.retry_after_s * 1000)),) if state.retry_after_s else ()
                context.set_trailing_metadata((("graft-error-code", refusals[status][1]), *pushback))
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
    monkeypatch.setattr(Client, "_pause", lambda _, seconds: found.append(seconds))
    return found


@pytest.mark.parametrize("transport", _TRANSPORTS)
@pytest.mark.parametrize("refusals", [[503], [429], [504], [503, 429, 503]], ids=str)
def test_a_busy_service_is_asked_again(
    request, connect, waits: list[float], transport: str, refusals: list[int]
) -> None:
    """Overloaded, not ready or late: up to three more tries, each after about twice the wait of the last."""
    address, state = request.getfixturevalue(f"refusing_{transport}")
    state.refusals = list(refusals)
    (one,) = connect(transport, address).classify([("a", b"a")])
    assert (one.label, one.version, state.asked) == ("x", 3, len(refusals) + 1)
    assert len(waits) == len(refusals)
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, [0.25, 0.5, 1.0], strict=False))


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
    """The server hung up, as servers do with idle connections: the same client goes on at once."""
    address, state = refusing_http
    client = connect("http", address)
    assert client.classify([("a", b"a")])[0].label == "x"
    state.refusals = [0]
    assert client.classify([("a", b"a")])[0].label == "x"
    assert (state.asked, waits) == (3, [])


def test_an_answer_that_is_no_json_is_an_error(refusing_http, connect, waits: list[float]) -> None:
    """A proxy's page, say: the client names the status and shows no trace."""
    address, state = refusing_http
    state.refusals = [502] * 9
    with pytest.raises(ClientError, match="answered 502 with something that is not JSON"):
        connect("http", address).classify([("a", b"a")])
    assert len(waits) == 3


@pytest.mark.parametrize("page", [b"<html>", b'{"message": "answered 413"}'])
def test_a_proxy_that_finds_a_request_too_large_is_understood(
    refusing_http, connect, waits: list[float], page: bytes
) -> None:
    """Its page is none of ours; by the code many images are parted, and one that is alone is that image's error."""
    address, state = refusing_http
    state.refusals, state.page = [413], page
    with pytest.raises(Refused, match="413") as refused:
        connect("http", address).classify([("a", b"a")])
    assert refused.value.code == "REQUEST_TOO_LARGE"
    assert str(refused.value).startswith("REQUEST_TOO_LARGE: ")
    assert waits == []


@pytest.mark.parametrize(("transport", "address"), [("http", "http://127.0.0.1:1"), ("grpc", "127.0.0.1:1")])
def test_nobody_there_is_an_error(connect, waits: list[float], transport: str, address: str) -> None:
    """Nothing listens: a ClientError that names the address, after the tries."""
    with pytest.raises(ClientError, match=r"127\.0\.0\.1:1"):
        connect(transport, address).classify([("a", b"a")])
    assert len(waits) == 3


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_what_the_service_asks_to_wait_is_waited(request, connect, waits: list[float], transport: str) -> None:
    """Retry-After and its like in gRPC: at least that, and not all clients at the same moment."""
    address, state = request.getfixturevalue(f"refusing_{transport}")
    state.refusals, state.retry_after_s = [503, 429], 3
    assert connect(transport, address).classify([("a", b"a")])[0].label == "x"
    assert len(waits) == 2
    assert all(3 <= wait <= 3.75 for wait in waits)


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_nothing_is_waited_beyond_the_deadline(request, connect, waits: list[float], transport: str) -> None:
    """When the wait alone would take longer than the time that is left, the refusal is told at once."""
    address, state = request.getfixturevalue(f"refusing_{transport}")
    state.refusals, state.retry_after_s = [503], 30
    with pytest.raises(Unanswered, match="not yet") as refused:
        connect(transport, address, timeout_s=20).classify([("a", b"a")])
    assert (state.asked, waits) == (1, [])
    assert refused.value.retry_after_s == 30


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("transport", _TRANSPORTS)
@pytest.mark.parametrize(("status", "overloaded"), [(429, True), (503, False), (504, False)])
def test_overload_is_told_from_absence(request, connect, transport: str, status: int, overloaded: bool) -> None:
    """Both may say when to come back, but only who is overloaded is there."""
    address, state = request.getfixturevalue(f"refusing_{transport}")
    state.refusals, state.retry_after_s = [status], 30
    with pytest.raises(Unanswered) as refused:
        connect(transport, address, timeout_s=20).classify([("a", b"a")])
    assert refused.value.overloaded is overloaded


def test_the_service_is_told_deadline_and_priority(refusing_http, refusing_grpc, connect) -> None:
    """So that it can drop what is late and put last what can wait."""
    address, state = refusing_http
    connect("http", address, timeout_s=7).classify([("a", b"a")], bulk=True)
    assert state.heard["X-Request-Priority"] == "bulk"
    assert 6000 < int(state.heard["X-Request-Timeout-Ms"]) <= 7000
    connect("http", address).classify([("a", b"a")])
    assert "X-Request-Priority" not in state.heard
    address, state = refusing_grpc
    connect("grpc", address, timeout_s=7).classify([("a", b"a")], bulk=True)
    assert 6 < float(state.heard["remaining"]) <= 7.1  # gRPC rounds a timeout up on the wire
    assert state.heard["priority"] == str(BULK)
    connect("grpc", address).classify([("a", b"a")])
    assert state.heard["priority"] == str(INTERACTIVE)


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_a_service_that_hangs_is_given_up(request, connect, transport: str) -> None:
    """At the deadline, not later."""
    address, state = request.getfixturevalue(f"refusing_{transport}")
    state.refusals = [1]
    with pytest.raises(Unanswered):
        connect(transport, address, timeout_s=0.3).classify([("a", b"a")])
    assert state.asked == 1
    state.go_on.set()


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_closing_wakes_whoever_waits_for_an_answer(request, connect, transport: str) -> None:
    """From another thread, as Ctrl-C in a bulk run does; afterwards the client says that it is closed."""
    address, state = request.getfixturevalue(f"refusing_{transport}")
    state.refusals = [1]
    client = connect(transport, address)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.classify, [("a", b"a")])
        assert state.hanging.wait(60)
        client.close()
        with pytest.raises(Unanswered):
            asked.result(timeout=30)
    state.go_on.set()
    with pytest.raises(Unanswered, match="closed"):
        client.classify([("a", b"a")])


def test_threads_share_a_client(client: Client) -> None:
    """Sixteen threads, one client: everybody gets the answers to their own images."""
    colours = ["red", "green", "blue", "grey"] * 16

    def ask(number: int) -> str:
        names = [f"{number}", f"{number}+"]
        found = client.classify([(names[0], plain(colours[number])), (names[1], plain(colours[number - 1]))])
        assert [one.filename for one in found] == names
        return f"{found[0].label} {found[1].label}"

    with ThreadPoolExecutor(16) as pool:
        labels = list(pool.map(ask, range(64)))
    assert labels == [f"{colours[number]} {colours[number - 1]}" for number in range(64)]


def test_waits_double_and_end_somewhere() -> None:
    """With a random part, and never less than the service asks."""
    retry = Retry(first_wait_s=1, longest_wait_s=8)
    for failed, most in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (1000, 8)):
        waits = [retry.wait_s(failed, 0) for _ in range(200)]
        assert most / 2 <= min(waits) < max(waits) <= most
    assert min(retry.wait_s(1, 20) for _ in range(50)) >= 20
