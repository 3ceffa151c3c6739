"""The gRPC interface of a running service: the same answers and refusals as over HTTP, in gRPC's words."""

import hashlib
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from prometheus_client.parser import text_string_to_metric_families

from protos.classifier_pb2 import ClassifyRequest, ClassifyResponse, Image
from protos.classifier_pb2_grpc import ImageClassifierStub
from service.image import ImageSpec, decode
from tests.conftest import SIDE_PX
from tests.pictures import BAD_FILES, COLOURS, ODD_FILES, BadFile, encode, photo, plain
from tests.running import LEAKS, Service

_DEADLINE_S = 20.0
_METHOD = "/graft.v1.ImageClassifier/Classify"


@pytest.fixture(autouse=True)
def unharmed(service, stub) -> Iterator[None]:
    """After every test the same processes are alive and a good image is answered."""
    before = service.engines(), service.fronts()
    yield
    assert (service.engines(), service.fronts()) == before
    assert _ask(stub, plain("blue")).results[0].label == "blue"


def _ask(stub: ImageClassifierStub, *images: bytes, timeout: float = _DEADLINE_S, **fields: object) -> ClassifyResponse:
    request = ClassifyRequest(images=[Image(data=data) for data in images], **fields)
    return stub.Classify(request, timeout=timeout)


def _refusal(call: Callable[[], object], status: grpc.StatusCode, code: str | None, says: str) -> None:
    """Asserts the status, the error's code beside it, and a message without a word of the inside."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    error = refused.value
    assert error.code() is status, error.details()
    assert dict(error.trailing_metadata()).get("graft-error-code") == code
    assert says in error.details()
    for leak in LEAKS:
        assert leak not in error.details()


def test_an_answer_has_labels_scores_and_timing(stub: ImageClassifierStub) -> None:
    """The same fields as over HTTP: five labels by default, best first."""
    answer = _ask(stub, encode(photo(1)))
    assert (answer.model, answer.version) == ("pets", 1)
    (result,) = answer.results
    assert [one.label for one in result.top] == ["green", "red", "grey", "blue"]
    assert sum(one.score for one in result.top) == pytest.approx(1, abs=1e-5)
    assert (result.label, result.score) == ("green", result.top[0].score)
    assert result.timing_ms.inference > 0
    assert result.timing_ms.batch_size >= 1
    assert not result.HasField("error")


def test_both_protocols_give_the_same_answer(service: Service, stub: ImageClassifierStub) -> None:
    """Labels and scores of one image are equal to the last digit that JSON shows."""
    for seed in range(4):
        image = encode(photo(seed))
        over_http = service.classify(image, "?pixels_sha256=1").json["results"][0]
        over_grpc = _ask(stub, image, pixels_sha256=True).results[0]
        assert [one["label"] for one in over_http["top"]] == [one.label for one in over_grpc.top]
        scores = [one.score for one in over_grpc.top]
        assert [one["score"] for one in over_http["top"]] == pytest.approx(scores, abs=1e-6)
        assert over_http["pixels_sha256"] == over_grpc.pixels_sha256


def test_many_images_are_answered_in_order(stub: ImageClassifierStub) -> None:
    """One result per image, with its name."""
    colours = [list(COLOURS)[number % 4] for number in range(20)]
    images = [Image(data=plain(colour), filename=f"{n} {colour}") for n, colour in enumerate(colours)]
    answer = stub.Classify(ClassifyRequest(images=images), timeout=_DEADLINE_S)
    assert [(one.filename, one.label) for one in answer.results] == [(f"{n} {c}", c) for n, c in enumerate(colours)]


@pytest.mark.parametrize("fields", [{"model": "pets"}, {"version": 1}, {"model": "pets", "version": 1, "top_k": 2}])
def test_model_version_and_top_k_may_be_given(stub: ImageClassifierStub, fields: dict[str, object]) -> None:
    """Each of them is heeded; 0 labels means the default."""
    answer = _ask(stub, plain("red"), **fields)
    assert (answer.model, answer.version, len(answer.results[0].top)) == ("pets", 1, fields.get("top_k", 4))


def test_pixels_sha256_is_of_the_one_decode(stub: ImageClassifierStub) -> None:
    """Asked for, the digest is the one of `service.image.decode`; not asked for, it is empty."""
    image = encode(photo(5))
    expected = hashlib.sha256(decode(image, ImageSpec(SIDE_PX)).tobytes()).hexdigest()
    assert _ask(stub, image, pixels_sha256=True).results[0].pixels_sha256 == expected
    assert _ask(stub, image).results[0].pixels_sha256 == ""


def test_a_version_without_activation_maps_says_so(stub: ImageClassifierStub) -> None:
    """The tests' model has none."""
    says = "expected a version with class activation maps"
    status = grpc.StatusCode.FAILED_PRECONDITION
    _refusal(lambda: _ask(stub, plain("red"), activation_map=True), status, "NO_ACTIVATION_MAP", says)


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_unusual_file_is_answered(stub: ImageClassifierStub, name: str) -> None:
    """Every colour mode, depth, orientation and container."""
    expected = hashlib.sha256(decode(ODD_FILES[name], ImageSpec(SIDE_PX)).tobytes()).hexdigest()
    assert _ask(stub, ODD_FILES[name], pixels_sha256=True).results[0].pixels_sha256 == expected


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
def test_a_bad_image_is_refused_with_its_reason(stub: ImageClassifierStub, bad: BadFile) -> None:
    """Alone in its request, its error is the call's: INVALID_ARGUMENT, with the code as metadata."""
    _refusal(lambda: _ask(stub, bad.data), grpc.StatusCode.INVALID_ARGUMENT, bad.code, bad.says)


def test_bad_images_spoil_no_good_ones(stub: ImageClassifierStub) -> None:
    """Bad files around a good one: each gets what it would get alone, and the call succeeds."""
    for start in (0, 11):
        some = BAD_FILES[start : start + 11]
        answer = _ask(stub, some[0].data, plain("green"), *[bad.data for bad in some[1:]])
        seen = [result.label or result.error.code for result in answer.results]
        assert seen == [some[0].code, "green", *[bad.code for bad in some[1:]]]
        assert all(result.error.detail for result in answer.results if not result.label)


def test_an_image_of_too_many_bytes_is_refused(stub: ImageClassifierStub) -> None:
    """One byte more than allowed; its neighbour is answered."""
    answer = _ask(stub, b"\xff" * 500_001, plain("red"))
    assert answer.results[0].error.code == "IMAGE_TOO_LARGE"
    assert answer.results[0].error.detail == "expected at most 500000 bytes, got 500001"
    assert answer.results[1].label == "red"


@pytest.mark.parametrize(
    ("images", "fields", "status", "code", "says"),
    [
        (1, {"model": "cats"}, "NOT_FOUND", "MODEL_NOT_FOUND", "no model 'cats'; there are: pets"),
        (1, {"version": 7}, "NOT_FOUND", "MODEL_NOT_FOUND", "no version 7 of 'pets' is served; there are: [1]"),
        (1, {"version": 2**63 - 1}, "NOT_FOUND", "MODEL_NOT_FOUND", "no version 9223372036854775807"),
        (
            1,
            {"version": -1},
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
            "expected version to be 0 (the live one) or larger",
        ),
        (
            1,
            {"top_k": -1},
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
            "expected top_k to be 0 (5 labels) or larger, got -1",
        ),
        (1, {"top_k": 2**31 - 1}, "INVALID_ARGUMENT", "INVALID_REQUEST", "expected top_k to be 1 to 10000"),
        (0, {}, "INVALID_ARGUMENT", "INVALID_REQUEST", "expected 1 to 20 images in a request, got 0"),
        (21, {}, "INVALID_ARGUMENT", "INVALID_REQUEST", "expected 1 to 20 images in a request, got 21"),
    ],
    ids=[
        "unknown model",
        "unknown version",
        "huge version",
        "negative version",
        "negative top_k",
        "huge top_k",
        "no image",
        "too many images",
    ],
)
def test_a_wrong_request_says_what_was_expected(
    stub: ImageClassifierStub, *, images: int, fields: dict[str, object], status: str, code: str, says: str
) -> None:
    """The status is gRPC's, the code is the same word as over HTTP."""
    _refusal(lambda: _ask(stub, *[plain("red")] * images, **fields), grpc.StatusCode[status], code, says)


def test_a_message_that_is_too_large_is_refused(stub: ImageClassifierStub) -> None:
    """The library refuses it before any of our code sees it."""
    images = [b"x" * 400_000] * 6
    _refusal(lambda: _ask(stub, *images), grpc.StatusCode.RESOURCE_EXHAUSTED, None, "larger than max")


def test_bytes_that_are_no_message_are_refused(service: Service) -> None:
    """Garbage in place of a ClassifyRequest ends that call alone."""
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.unary_unary(_METHOD, None, None)
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff\xff\xff garbage", timeout=_DEADLINE_S)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "expected the message that this method takes, got 11 bytes that are none"
    assert dict(refused.value.trailing_metadata())["graft-error-code"] == "INVALID_REQUEST"


def test_an_unknown_method_is_unimplemented(service: Service) -> None:
    """As gRPC has it."""
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.unary_unary("/graft.v1.ImageClassifier/Guess", None, None)
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=_DEADLINE_S)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_client_s_deadline_holds(stub: ImageClassifierStub) -> None:
    """A deadline that has passed before anything could be done: DEADLINE_EXCEEDED, nothing else."""
    with pytest.raises(grpc.RpcError) as refused:
        _ask(stub, *[encode(photo(number)) for number in range(20)], timeout=0.0001)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_clients_that_give_up_free_their_places(stub: ImageClassifierStub) -> None:
    """Of 480 images at once, the queue holding 512, most are cancelled in the middle: three times, and none is lost."""
    request = ClassifyRequest(images=[Image(data=encode(photo(number))) for number in range(20)])
    for _ in range(3):
        calls = [stub.Classify.future(request, timeout=_DEADLINE_S) for _ in range(24)]
        assert len(calls[0].result().results) == 20
        for call in calls:
            call.cancel()
    calls = [stub.Classify.future(request, timeout=_DEADLINE_S) for _ in range(24)]
    assert [len(call.result().results) for call in calls] == [20] * 24


def test_many_clients_at_once_each_get_their_own_answer(stub: ImageClassifierStub) -> None:
    """Sixty calls at the same time on one connection; nothing is swapped."""
    colours = [list(COLOURS)[number % 4] for number in range(60)]
    calls = [
        stub.Classify.future(ClassifyRequest(images=[Image(data=plain(colour))]), timeout=_DEADLINE_S)
        for colour in colours
    ]
    assert [call.result().results[0].label for call in calls] == colours


def test_health_says_serving(service: Service) -> None:
    """grpc.health.v1, for the whole server and for the service by name; Watch starts with the present state."""
    with grpc.insecure_channel(service.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "graft.v1.ImageClassifier"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=_DEADLINE_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            stub.Check(health_pb2.HealthCheckRequest(service="no.such"), timeout=_DEADLINE_S)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=_DEADLINE_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_reflection_describes_the_interface(service: Service) -> None:
    """A client without our protos finds the services and can call Classify with what reflection says."""
    with grpc.insecure_channel(service.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = set(database.get_services())
        assert names == {
            "graft.v1.ImageClassifier",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        method = DescriptorPool(database).FindServiceByName("graft.v1.ImageClassifier").methods_by_name["Classify"]
        assert [field.name for field in method.input_type.fields] == [
            "model",
            "version",
            "top_k",
            "images",
            "pixels_sha256",
            "label",
            "activation_map",
            "priority",
        ]


def test_reflection_is_served_as_v1_too(service: Service) -> None:
    """What tools ask for first: it describes every service that it lists, itself included."""
    method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.stream_stream(
            method, ServerReflectionRequest.SerializeToString, ServerReflectionResponse.FromString
        )
        (listed,) = call(iter([ServerReflectionRequest(list_services="")]), timeout=_DEADLINE_S)
        names = [one.name for one in listed.list_services_response.service]
        asked = iter([ServerReflectionRequest(file_containing_symbol=name) for name in names])
        files = {
            FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0]).package
            for answer in call(asked, timeout=_DEADLINE_S)
        }
    assert "graft.v1.ImageClassifier" in names
    assert files == {name.rpartition(".")[0] for name in names}


def test_metrics_count_both_protocols(service: Service, stub: ImageClassifierStub) -> None:
    """Calls over gRPC appear on the HTTP front's /metrics, by status; their images beside those of HTTP."""

    def read() -> dict[tuple[str, str, str], float]:
        families = text_string_to_metric_families(service.get("/metrics").body.decode())
        return {
            (
                one.name,
                one.labels.get("protocol", ""),
                one.labels.get("status") or one.labels.get("code", ""),
            ): one.value
            for family in families
            for one in family.samples
            if one.name in {"graft_requests_total", "graft_images_total", "graft_request_seconds_count"}
        }

    before = read()
    _ask(stub, plain("red"), b"text")
    for call in (lambda: _ask(stub, b""), lambda: _ask(stub, plain("red"), model="cats")):
        with pytest.raises(grpc.RpcError):
            call()
    after = read()
    rises = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    rises.pop(("graft_requests_total", "http", "200"))  # the /metrics before
    assert rises == {
        ("graft_requests_total", "grpc", "OK"): 1,
        ("graft_requests_total", "grpc", "INVALID_ARGUMENT"): 1,
        ("graft_requests_total", "grpc", "NOT_FOUND"): 1,
        ("graft_request_seconds_count", "grpc", ""): 2,
        ("graft_images_total", "", "OK"): 1,
        ("graft_images_total", "", "UNSUPPORTED_FORMAT"): 1,
        ("graft_images_total", "", "EMPTY_IMAGE"): 1,
    }
