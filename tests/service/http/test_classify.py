"""The HTTP interface of a running service: every form of a request, and every way in which one can be wrong."""

import base64
import hashlib
import json
import socket
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.image import ImageSpec, decode
from tests.conftest import SIDE_PX
from tests.pictures import BAD_FILES, COLOURS, ODD_FILES, BadFile, encode, photo, plain
from tests.running import LEAKS, HttpAnswer, Service

_STATUS = {
    "EMPTY_IMAGE": 400,
    "INVALID_BASE64": 400,
    "CORRUPT_IMAGE": 400,
    "UNSUPPORTED_FORMAT": 415,
    "IMAGE_TOO_LARGE": 413,
}
_EXPECTED_JSON = 'expected {"images": [{"b64": "..."}]}'


@pytest.fixture(autouse=True)
def unharmed(service) -> Iterator[None]:
    """After every test the same processes are alive and a good image is answered."""
    before = service.engines(), service.fronts()
    yield
    assert (service.engines(), service.fronts()) == before
    answer = service.classify(plain("blue"))
    assert (answer.status, answer.json["results"][0]["label"]) == (200, "blue")


def _multipart(files: Iterable[tuple[str, bytes]], fields: Iterable[tuple[str, str]] = ()) -> tuple[bytes, str]:
    """A form's body and its content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'.encode()
        + b"Content-Type: application/octet-stream\r\n\r\n"
        + data
        + b"\r\n"
        for name, data in files
    ]
    parts += [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _post_files(service: Service, files: Iterable[tuple[str, bytes]], query: str = "") -> HttpAnswer:
    body, kind = _multipart(files)
    return service.classify(body, query, kind)


def _post_json(service: Service, document: object, query: str = "") -> HttpAnswer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return service.classify(body, query, "application/json")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _assert_clean(text: str) -> None:
    """What a client reads holds no path of the server and no traceback."""
    for leak in LEAKS:
        assert leak not in text, f"{leak!r} in {text}"


def _problem(answer: HttpAnswer, status: int, code: str, says: str) -> dict[str, Any]:
    """Asserts an RFC 9457 document."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert (problem["status"], problem["code"]) == (status, code)
    assert says in problem["detail"]
    assert problem["title"]
    _assert_clean(answer.body.decode())
    return problem


# -- the forms of a request


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", None],
    ids=["image", "another image type", "octet-stream", "curl's default", "none"],
)
def test_a_raw_body_is_one_image(service: Service, content_type: str | None) -> None:
    """Whatever the content type says of it, the bytes decide; the answer names model and version."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = service.request("POST", "/classify", plain("green"), headers)
    assert answer.status == 200
    assert (answer.json["model"], answer.json["version"]) == ("pets", 1)
    (result,) = answer.json["results"]
    assert result["label"] == "green"
    assert "filename" not in result


def test_an_answer_has_labels_scores_and_timing(service: Service) -> None:
    """The fields of DESIGN.md: scores of all labels best first, adding up to 1, and milliseconds of each stage."""
    (result,) = service.classify(encode(photo(1))).json["results"]
    assert [one["label"] for one in result["top"]] == ["green", "red", "grey", "blue"]
    scores = [one["score"] for one in result["top"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert (result["label"], result["score"]) == ("green", scores[0])
    assert result["unknown"] is False
    assert set(result["timing_ms"]) == {"queue", "decode", "inference"}
    assert result["timing_ms"]["decode"] > 0
    assert result["batch_size"] >= 1


@pytest.mark.parametrize("count", [1, 2, 20])
def test_a_form_of_files(service: Service, count: int) -> None:
    """One or many files, up to the limit of 20: one result each, in order, with their names."""
    colours = [list(COLOURS)[number % 4] for number in range(count)]
    answer = _post_files(service, [(f"{n} {colour}.png", plain(colour)) for n, colour in enumerate(colours)])
    assert answer.status == 200
    seen = [(result["filename"], result["label"]) for result in answer.json["results"]]
    assert seen == [(f"{n} {colour}.png", colour) for n, colour in enumerate(colours)]


def test_a_form_of_files_with_other_fields(service: Service) -> None:
    """Fields that are no files are of no interest; names in other scripts come back as they were."""
    body, kind = _multipart([("größe 猫.png", plain("red"))], [("comment", "hello"), ("top_k", "1")])
    (result,) = service.classify(body, "", kind).json["results"]
    assert (result["filename"], result["label"], len(result["top"])) == ("größe 猫.png", "red", 4)


def test_json_with_base64(service: Service) -> None:
    """One or many images in base64, with names or without."""
    images = [{"b64": _b64(plain("red")), "filename": "r"}, {"b64": _b64(plain("blue"))}]
    answer = _post_json(service, {"images": images})
    assert answer.status == 200
    first, second = answer.json["results"]
    assert (first["filename"], first["label"], second["label"]) == ("r", "red", "blue")
    assert "filename" not in second


def test_a_chunked_body_needs_no_length(service: Service) -> None:
    """A client that does not know the length in advance is answered."""
    image = plain("red")
    answer = service.classify(iter([image[:10], image[10:]]))
    assert (answer.status, answer.json["results"][0]["label"]) == (200, "red")


def test_one_connection_carries_many_requests(service: Service) -> None:
    """Keep-alive: after a good answer and after a refusal alike."""
    import http.client  # noqa: PLC0415 - only here

    connection = http.client.HTTPConnection(service.http.removeprefix("http://"), timeout=20)
    try:
        for body, status in ((plain("red"), 200), (b"text", 415), (b"", 400), (plain("red"), 200)):
            connection.request("POST", "/classify", body, {"Content-Type": "image/png"})
            response = connection.getresponse()
            response.read()
            assert response.status == status
    finally:
        connection.close()


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (4, 4), (10_000, 4)])
def test_top_k(service: Service, top_k: int, count: int) -> None:
    """That many labels, at most all."""
    assert len(service.classify(plain("red"), f"?top_k={top_k}").json["results"][0]["top"]) == count


@pytest.mark.parametrize("query", ["?model=pets", "?version=1", "?version=0", "?model=pets&version=1", "?model="])
def test_model_and_version_may_be_named(service: Service, query: str) -> None:
    """Named, or left out where there is one model and for the live version: the same answer."""
    answer = service.classify(plain("grey"), query)
    assert (answer.status, answer.json["model"], answer.json["version"]) == (200, "pets", 1)


def test_pixels_sha256_is_of_the_one_decode(service: Service) -> None:
    """Asked for, the digest is the one of `service.image.decode` here; not asked for, it is not there."""
    image = encode(photo(5))
    expected = hashlib.sha256(decode(image, ImageSpec(SIDE_PX)).tobytes()).hexdigest()
    assert service.classify(image, "?pixels_sha256=1").json["results"][0]["pixels_sha256"] == expected
    assert "pixels_sha256" not in service.classify(image).json["results"][0]


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_unusual_file_is_answered(service: Service, name: str) -> None:
    """Every colour mode, depth, orientation and container: the pixels that the engine saw are those of the decode."""
    answer = service.classify(ODD_FILES[name], "?pixels_sha256=1")
    assert answer.status == 200
    expected = hashlib.sha256(decode(ODD_FILES[name], ImageSpec(SIDE_PX)).tobytes()).hexdigest()
    assert answer.json["results"][0]["pixels_sha256"] == expected


# -- bad images


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
def test_a_bad_image_is_refused_with_its_reason(service: Service, bad: BadFile) -> None:
    """Alone in its request, its error's status is the request's."""
    answer = service.classify(bad.data)
    assert answer.status == _STATUS[bad.code], answer.body
    (result,) = answer.json["results"]
    assert result["error"]["code"] == bad.code
    assert bad.says in result["error"]["detail"]
    _assert_clean(answer.body.decode())


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_bad_images_spoil_no_good_ones(service: Service, form: str) -> None:
    """Every bad file in one request with good ones between them: each gets what it would get alone, status 200."""
    files = [(bad.name, bad.data) for bad in BAD_FILES[:9]] + [("g", plain("green"))]
    files += [(bad.name, bad.data) for bad in BAD_FILES[9:18]] + [("r", plain("red"))]
    answer = (
        _post_files(service, files)
        if form == "multipart"
        else _post_json(service, {"images": [{"b64": _b64(data), "filename": name} for name, data in files]})
    )
    assert answer.status == 200
    codes = {bad.name: bad.code for bad in BAD_FILES}
    seen = [(one["filename"], one.get("label") or one["error"]["code"]) for one in answer.json["results"]]
    assert seen == [(name, codes.get(name) or {"g": "green", "r": "red"}[name]) for name, _ in files]


@pytest.mark.parametrize(
    "text",
    ["not base64!", "YWJ", "data:image/png;base64,iVBORw0KGgo=", "ünïcödé", "aGk=\n"],
    ids=["text", "cut", "data url", "not ascii", "line break"],
)
def test_malformed_base64_is_its_image_s_error(service: Service, text: str) -> None:
    """The image in front of it is answered; alone it is a 400."""
    bad = {"b64": text, "filename": "bad"}
    both = _post_json(service, {"images": [{"b64": _b64(plain("red"))}, bad]})
    assert both.status == 200
    good, failed = both.json["results"]
    assert good["label"] == "red"
    assert failed["error"]["code"] == "INVALID_BASE64"
    assert "expected an image in base64, got" in failed["error"]["detail"]
    alone = _post_json(service, {"images": [bad]})
    assert alone.status == 400
    _assert_clean(alone.body.decode())


def test_an_image_of_too_many_bytes_is_refused(service: Service) -> None:
    """One byte more than allowed; its neighbour is answered."""
    answer = _post_files(service, [("large", b"\xff" * 500_001), ("small", plain("red"))])
    assert answer.status == 200
    assert answer.json["results"][0]["error"]["detail"] == "expected at most 500000 bytes, got 500001"
    assert answer.json["results"][1]["label"] == "red"
    assert service.classify(b"\xff" * 500_001).status == 413


# -- bad requests


@pytest.mark.parametrize(
    ("query", "status", "code", "says"),
    [
        ("?model=cats", 404, "MODEL_NOT_FOUND", "no model 'cats'; there are: pets"),
        ("?version=7", 404, "MODEL_NOT_FOUND", "no version 7 of 'pets' is served; there are: [1]"),
        ("?version=9223372036854775807", 404, "MODEL_NOT_FOUND", "no version 9223372036854775807"),
        ("?version=9223372036854775808", 400, "INVALID_REQUEST", "expected version to be an integer of 0 to"),
        ("?version=latest", 400, "INVALID_REQUEST", "expected version to be an integer of 0 to"),
        ("?version=1.0", 400, "INVALID_REQUEST", "got '1.0'"),
        ("?top_k=0", 400, "INVALID_REQUEST", "expected top_k to be an integer of 1 to 10000, got '0'"),
        ("?top_k=-1", 400, "INVALID_REQUEST", "expected top_k to be an integer of 1 to 10000, got '-1'"),
        ("?top_k=", 400, "INVALID_REQUEST", "expected top_k to be an integer of 1 to 10000, got ''"),
        ("?top_k=10001", 400, "INVALID_REQUEST", "got '10001'"),
        ("?top_k=%C2%B2", 400, "INVALID_REQUEST", "expected top_k"),
        (f"?top_k={'9' * 3000}", 400, "INVALID_REQUEST", "expected top_k"),
        (f"?top_k={'0' * 3000}1", 400, "INVALID_REQUEST", "expected top_k"),
        (f"?top_k={'0' * 19}155555555", 400, "INVALID_REQUEST", "expected top_k"),
        ("?pixels_sha256=yes", 400, "INVALID_REQUEST", "expected pixels_sha256 to be an integer of 0 to 1, got 'yes'"),
        ("?activation_map=2", 400, "INVALID_REQUEST", "expected activation_map to be an integer of 0 to 1, got '2'"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) and value.startswith("?") else "",
)
def test_a_wrong_parameter_says_what_was_expected(
    service: Service, query: str, status: int, code: str, says: str
) -> None:
    """Unknown names are 404 and list what there is; anything that is no such number is 400."""
    _problem(service.classify(plain("red"), query), status, code, says)


def test_a_version_without_activation_maps_says_so(service: Service) -> None:
    """The tests' model has none: each image's error names the reason; not asked for, nothing is different."""
    answer = service.classify(plain("red"), "?activation_map=1")
    assert answer.status == 422
    assert answer.json["results"][0]["error"]["code"] == "NO_ACTIVATION_MAP"
    assert "expected a version with class activation maps" in answer.json["results"][0]["error"]["detail"]
    assert "activation_map" not in service.classify(plain("red"), "?activation_map=0").json["results"][0]


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/mixed", "video/mp4", "nonsense"])
def test_a_wrong_content_type_says_which_are_right(service: Service, kind: str) -> None:
    """415, and the message lists the forms that there are."""
    answer = service.classify(plain("red"), "", kind)
    _problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE", "multipart/form-data or application/json, got")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "malformed JSON"),
        (b"{", "malformed JSON"),
        (b'{"images": [{"b64": "aaaa"}]', "malformed JSON"),
        (b'{"images": "\xff\xfe"}', "malformed JSON"),
        (b"\xff\xff\xff\xff", "malformed JSON"),
        (b"[" * 200_000, "malformed JSON"),
        (b"9" * 10_000, "malformed JSON"),
        (b"null", "without a list of images"),
        (b"[]", "without a list of images"),
        (b'"images"', "without a list of images"),
        (b"{}", "without a list of images"),
        (b'{"images": []}', "without a list of images"),
        (b'{"images": {"b64": "aaaa"}}', "without a list of images"),
        (b'{"images": ["aaaa"]}', "image 0 is not an object"),
        (b'{"images": [{"b64": "aaaa"}, {"b64": 5}]}', "image 1 is not an object"),
        (b'{"images": [{"data": "aaaa"}]}', "image 0 is not an object"),
        (b'{"images": [null]}', "image 0 is not an object"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "",
)
def test_malformed_json_says_what_was_expected(service: Service, body: bytes, says: str) -> None:
    """Not JSON, not text, too deep, or not of the shape: 400 with the shape."""
    problem = _problem(_post_json(service, body), 400, "INVALID_REQUEST", says)
    assert _EXPECTED_JSON in problem["detail"]


def test_a_filename_that_is_no_text_is_harmless(service: Service) -> None:
    """Whatever JSON has for a name, the image is answered."""
    for name in (5, None, ["x"], "\ud800", "a\nb"):
        answer = _post_json(service, {"images": [{"b64": _b64(plain("red")), "filename": name}]})
        assert (answer.status, answer.json["results"][0]["label"]) == (200, "red")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (_multipart([], [("model", "pets")])[0], None),
        (b"", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (plain("red"), "multipart/form-data"),
        (plain("red"), "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\nabc", "multipart/form-data; boundary=x"),
    ],
    ids=["fields only", "empty", "no parts", "no boundary", "not a form", "cut in its file"],
)
def test_a_form_without_files_is_refused(service: Service, body: bytes, kind: str | None) -> None:
    """Nothing in it, not a form at all, or cut off: 400."""
    kind = kind or f"multipart/form-data; boundary={body[2:34].decode()}"
    _problem(service.classify(body, "", kind), 400, "INVALID_REQUEST", "expected at least one file")


@pytest.mark.parametrize(("count", "status"), [(21, 400), (40, 413)])
def test_too_many_images_are_refused(service: Service, count: int, status: int) -> None:
    """More than 20 files: refused as a whole; very many already while the form is read."""
    answer = _post_files(service, [(str(number), plain("red")) for number in range(count)])
    assert answer.status == status
    assert "20 images" in answer.json["detail"]
    assert answer.json["code"] == {400: "INVALID_REQUEST", 413: "REQUEST_TOO_LARGE"}[status]
    images = [{"b64": _b64(plain("red"))}] * count
    _problem(
        _post_json(service, {"images": images}),
        400,
        "INVALID_REQUEST",
        f"expected 1 to 20 images in a request, got {count}",
    )


@pytest.mark.parametrize("kind", ["image/png", "application/json", "multipart/form-data; boundary=x"])
def test_a_body_that_is_too_large_is_refused(service: Service, kind: str) -> None:
    """More than 2,000,000 bytes, in every form: 413 with the limit."""
    answer = service.classify(b"x" * 2_000_001, "", kind)
    _problem(answer, 413, "REQUEST_TOO_LARGE", "expected a body of at most 2000000 bytes")


def test_a_chunked_body_that_is_too_large_is_refused(service: Service) -> None:
    """Without a length in advance the limit holds as well."""
    answer = service.classify(iter([b"x" * 100_000] * 30))
    _problem(answer, 413, "REQUEST_TOO_LARGE", "expected a body of at most 2000000 bytes")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_a_wrong_method_says_which_is_right(service: Service, method: str) -> None:
    """405 with Allow."""
    answer = service.request(method, "/classify")
    _problem(answer, 405, "METHOD_NOT_ALLOWED", "")
    assert "POST" in answer.headers["Allow"]


def test_an_unknown_path_is_not_found(service: Service) -> None:
    """404 as a problem document, not as a page."""
    _problem(service.get("/no/such/path"), 404, "NOT_FOUND", "")


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n\x89PNG",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nabc",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 999\r\n\r\n--x\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHos",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ],
    ids=["raw", "chunked", "form", "headers", "negative length", "no chunk size", "TLS"],
)
def test_a_client_that_hangs_up_in_the_middle_harms_nobody(service: Service, sent: bytes) -> None:
    """Half a request and then silence: the connection is closed, without a word of the inside."""
    host, port = service.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        heard = b""
        try:
            while chunk := client.recv(65536):
                heard += chunk
        except ConnectionResetError:
            pass
    assert b"HTTP/1.1 200" not in heard
    assert b"HTTP/1.1 5" not in heard
    _assert_clean(heard.decode())


def test_many_clients_at_once_each_get_their_own_answer(service: Service) -> None:
    """Sixteen threads ask about sixty images at the same time; nothing is swapped."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only here

    colours = [list(COLOURS)[number % 4] for number in range(60)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda colour: service.classify(plain(colour)), colours))
    assert [answer.json["results"][0]["label"] for answer in answers] == colours


# -- the other paths


def test_healthz_is_alive(service: Service) -> None:
    """Live as long as it answers."""
    answer = service.get("/healthz")
    assert (answer.status, answer.json) == (200, {"live": True})


def test_readyz_says_what_is_served(service: Service) -> None:
    """Ready, with each version's state, engine and number of engine processes."""
    answer = service.readyz()
    assert answer.status == 200
    assert answer.json == {
        "ready": True,
        "draining": False,
        "grpc_port": int(service.grpc.rpartition(":")[2]),
        "models": {
            "pets": {
                "live": 1,
                "versions": {"1": {"state": "AVAILABLE", "engine": "openvino/f32", "engines": 2}},
            }
        },
    }


def _metrics(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = service.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.body.decode()))
    assert all(family.documentation for family in families)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def test_metrics_count_what_was_done(service: Service) -> None:
    """Well-formed, and every counter rises by exactly what was asked: requests, images by code, times, batches."""

    def value(found: dict[Any, float], name: str, **labels: str) -> float:
        return found.get((name, frozenset(labels.items())), 0.0)

    before = _metrics(service)
    _post_files(service, [("a", plain("red")), ("b", b"text"), ("c", plain("red"))])
    service.classify(b"")
    service.classify(plain("red"), "?model=cats")
    after = _metrics(service)

    def rise(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    pets = {"model": "pets", "version": "1"}
    # the probe of /readyz is no request of anybody's, and /metrics itself is the one request more
    assert rise("graft_requests_total", protocol="http", status="200") == 2
    assert rise("graft_requests_total", protocol="http", status="400") == 1
    assert rise("graft_requests_total", protocol="http", status="404") == 1
    assert rise("graft_request_seconds_count", protocol="http") == 2
    assert rise("graft_images_total", code="OK", **pets) == 2
    assert rise("graft_images_total", code="UNSUPPORTED_FORMAT", **pets) == 1
    assert rise("graft_images_total", code="EMPTY_IMAGE", **pets) == 1
    assert rise("graft_batch_size_count", model="pets") == 2
    for stage in ("queue", "decode", "inference"):
        assert rise("graft_stage_seconds_count", model="pets", stage=stage) == 2
    assert value(after, "graft_version_state", state="AVAILABLE", **pets) == 1
    assert value(after, "graft_live_version", model="pets") == 1
    assert value(after, "graft_engines", **pets) == 2
    assert value(after, "graft_engine_restarts_total") == 0
    assert value(after, "graft_requests_in_flight") == 0
