"""The engine `tensorflow-serving`: the same answers as its server's, retries, deadlines, TLS, and every failure."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos import tensorflow_serving_pb2 as tfs
from service.engine import tensorflow_serving
from service.engine.runtime import candidates, load
from service.errors import BrokenVersion, DeadlineExceeded, GraftError, InternalError, Overloaded, Unavailable
from service.settings import Settings
from service.version import Version, read_version
from tests.conftest import VersionFactory
from tests.pictures import plain
from tests.running import Service, eventually

_CERTIFICATES = Path(__file__).parent / "certificates"
_PIXELS = np.zeros((2, 32, 32, 3), np.uint8)
_SCORES = np.arange(8, dtype=np.float32).reshape(2, 4)

Answer = Callable[[tfs.PredictRequest, Any], tfs.PredictResponse]


class _Server:
    """A PredictionService that answers as the test says, one answer after the other, the last one for ever."""

    def __init__(self, *answers: Answer, tls: bool = False) -> None:
        self.requests: list[tfs.PredictRequest] = []
        self.left_s: list[float] = []
        self._answers = list(answers)
        self._server = grpc.server(ThreadPoolExecutor(4))
        method = grpc.unary_unary_rpc_method_handler(
            self._predict, tfs.PredictRequest.FromString, tfs.PredictResponse.SerializeToString
        )
        handler = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": method})
        self._server.add_generic_rpc_handlers((handler,))
        if tls:
            pair = ((_CERTIFICATES / "localhost.key").read_bytes(), (_CERTIFICATES / "localhost.pem").read_bytes())
            port = self._server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
        else:
            port = self._server.add_insecure_port("localhost:0")
        self.url = f"{'grpcs' if tls else 'grpc'}://localhost:{port}"
        self._server.start()

    def _predict(self, request: tfs.PredictRequest, context: grpc.ServicerContext) -> tfs.PredictResponse:
        self.requests.append(request)
        self.left_s.append(context.time_remaining())
        return self._answers[min(len(self.requests), len(self._answers)) - 1](request, context)

    def stop(self) -> None:
        self._server.stop(None)


@pytest.fixture
def serve() -> Iterator[Callable[..., _Server]]:
    """Starts servers and ends them."""
    started: list[_Server] = []

    def begin(*answers: Answer, tls: bool = False) -> _Server:
        started.append(_Server(*answers, tls=tls))
        return started[-1]

    yield begin
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def version(version_factory: VersionFactory, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Of the tests' model."""
    return read_version(version_factory(tmp_path_factory.mktemp("remote")))


def _runtime(version: Version, url: str, ca_file: Path = Path(), timeout_s: float = 10.0) -> tensorflow_serving.Loaded:
    return tensorflow_serving.Loaded(version, "tensorflow-serving", 1, url, ca_file, timeout_s)


def _right(_: tfs.PredictRequest, __: Any) -> tfs.PredictResponse:
    return _scores(float_val=_SCORES.ravel())


def _scores(dtype: int = tfs.DT_FLOAT, **content: Any) -> tfs.PredictResponse:
    response = tfs.PredictResponse()
    response.outputs["scores"].CopyFrom(tfs.TensorProto(dtype=dtype, **content))
    return response


def _failing(code: grpc.StatusCode) -> Answer:
    def answer(_: tfs.PredictRequest, context: Any) -> tfs.PredictResponse:
        context.abort(code, "as the test says")
        raise AssertionError

    return answer


@pytest.mark.parametrize("content", [{"float_val": _SCORES.ravel()}, {"tensor_content": _SCORES.tobytes()}])
def test_what_is_asked_and_what_is_read(serve, version: Version, content: dict[str, Any]) -> None:
    """One uint8 tensor for the version by name and number; both forms of the answer are read."""
    server = serve(lambda *_: _scores(**content))
    np.testing.assert_array_equal(_runtime(version, server.url).predict(_PIXELS), _SCORES)
    (request,) = server.requests
    assert (request.model_spec.name, request.model_spec.version.value) == (version.name, version.number)
    tensor = request.inputs["images"]
    assert [one.size for one in tensor.tensor_shape.dim] == [2, 32, 32, 3]
    assert (tensor.dtype, tensor.tensor_content) == (tfs.DT_UINT8, _PIXELS.tobytes())


def test_unavailable_is_tried_again(serve, version: Version) -> None:
    """Twice away, then there: the caller sees the answer only."""
    away = _failing(grpc.StatusCode.UNAVAILABLE)
    server = serve(away, away, _right)
    np.testing.assert_array_equal(_runtime(version, server.url).predict(_PIXELS), _SCORES)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.NOT_FOUND, Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.INVALID_ARGUMENT, InternalError),
        (grpc.StatusCode.INTERNAL, InternalError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
    ],
)
def test_other_errors_are_told_at_once(serve, version: Version, code: grpc.StatusCode, error: type[GraftError]) -> None:
    """No retry where it would not help; the words say who failed and how, not where it is."""
    server = serve(_failing(code))
    with pytest.raises(error, match=code.name) as raised:
        _runtime(version, server.url).predict(_PIXELS)
    assert "localhost" not in str(raised.value)
    assert len(server.requests) == 1


def test_away_for_good_ends_in_time(serve, version: Version) -> None:
    """Retries end with the time for a batch, and each of them gets what is left of it."""
    server = serve(_failing(grpc.StatusCode.UNAVAILABLE))
    runtime = _runtime(version, server.url, timeout_s=1.0)
    start = time.monotonic()
    with pytest.raises(Unavailable):
        runtime.predict(_PIXELS)
    assert time.monotonic() - start < 5
    assert server.left_s == sorted(server.left_s, reverse=True)
    assert server.left_s[0] < 1.5


def test_silence_is_a_deadline(serve, version: Version) -> None:
    """A server that takes a batch and says nothing costs the time for one batch."""
    server = serve(lambda *_: time.sleep(2) or _scores())
    with pytest.raises(DeadlineExceeded):
        _runtime(version, server.url, timeout_s=0.5).predict(_PIXELS)


@pytest.mark.parametrize(
    "response",
    [
        tfs.PredictResponse(),
        _scores(float_val=[1.0]),
        _scores(tfs.DT_DOUBLE, tensor_content=_SCORES.astype("f8").tobytes()),
    ],
    ids=["nothing", "too few", "another type"],
)
def test_no_answer_is_taken_for_one(serve, version: Version, response: tfs.PredictResponse) -> None:
    """What is not N x C scores is an error that says so."""
    server = serve(lambda *_: response)
    with pytest.raises(InternalError, match="expected 2 x 4 scores"):
        _runtime(version, server.url).predict(_PIXELS)


def test_nobody_there(version: Version) -> None:
    """It is said at load, and it is not the version's fault."""
    remote = {"url": "grpc://localhost:1", "ca_file": Path(), "timeout_s": 0.3}
    with pytest.raises(Unavailable, match="no TensorFlow Serving answers"):
        load(version, candidates("tensorflow-serving", frozenset(), has_gpu=False, remote=remote), 1)


def test_another_model_is_found_out(serve, version: Version) -> None:
    """A server whose scores are not those of the goldens is refused, as any runtime."""
    server = serve(lambda *_: _scores(float_val=_SCORES[:1].ravel()))
    remote = {"url": server.url, "ca_file": Path(), "timeout_s": 5.0}
    with pytest.raises(BrokenVersion, match="scores differ"):
        load(version, candidates("tensorflow-serving", frozenset(), has_gpu=False, remote=remote), 1)


def test_tls(serve, version: Version) -> None:
    """Asked over TLS with the authority's file; without trust there is no connection."""
    server = serve(_right, tls=True)
    trusted = _runtime(version, server.url, _CERTIFICATES / "localhost.pem")
    np.testing.assert_array_equal(trusted.predict(_PIXELS), _SCORES)
    with pytest.raises(Unavailable):
        _runtime(version, server.url, timeout_s=0.5)


def test_in_front_of_our_own_tensorflow_serving_face(
    mapped_service: Service, start_service: Callable[..., Service], version_factory: VersionFactory, tmp_path: Path
) -> None:
    """A service that forwards to another gives its labels and scores, and says that it has no activation maps."""
    version_factory(tmp_path, mapped=True)
    remote = f"grpc://{mapped_service.grpc}"
    front = start_service(tmp_path, engine="tensorflow-serving", tensorflow_serving=remote, request_timeout_s=20)
    assert front.readyz().json["models"]["pets"]["versions"]["1"]["engine"] == "tensorflow-serving"
    for colour in ("red", "green", "blue"):
        (mine,), (theirs,) = (one.classify(plain(colour)).json["results"] for one in (front, mapped_service))
        assert mine["top"] == theirs["top"]
    assert mapped_service.classify(plain("red"), "?activation_map=1").status == 200
    refused = front.classify(plain("red"), "?activation_map=1")
    assert refused.status == 422
    assert refused.json["results"][0]["error"] == {
        "code": "NO_ACTIVATION_MAP",
        "detail": "expected an engine that computes class activation maps; this one asks a TensorFlow Serving",
    }


def test_a_server_that_goes_away_is_503_and_comes_back(
    start_service: Callable[..., Service], version_factory: VersionFactory, tmp_path: Path
) -> None:
    """Without its server the service says UNAVAILABLE and is not ready; with it, it answers again."""
    version_factory(tmp_path)
    behind = start_service(tmp_path, engine="openvino/f32")
    front = start_service(
        tmp_path,
        engine="tensorflow-serving",
        tensorflow_serving=f"grpc://{behind.grpc}",
        tensorflow_serving_timeout_s=1,
    )
    port = behind.grpc.rsplit(":", 1)[1]
    behind.terminate()
    gone = front.classify(plain("red"))
    assert gone.status == 503
    assert gone.json["results"][0]["error"]["code"] == "UNAVAILABLE"
    start_service(tmp_path, engine="openvino/f32", grpc_port=int(port))
    eventually(lambda: front.classify(plain("red")).status == 200, "an answer")


@pytest.mark.parametrize("url", ["", "localhost:8500", "http://localhost:8500", "grpc://localhost", "grpc://:1/x"])
def test_urls(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no address is refused at the start, with the form that is expected."""
    from service.settings import read_settings  # noqa: PLC0415 - beside its only use

    with pytest.raises(SystemExit):
        read_settings(["--engine", "tensorflow-serving", "--tensorflow-serving", url], {})
    assert "expected grpc://HOST:PORT" in capsys.readouterr().err
    assert Settings().tensorflow_serving == ""
