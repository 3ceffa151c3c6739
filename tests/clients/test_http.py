"""Clients that know nothing of us: curl and Python's requests, with each of the three forms of a body."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.pictures import encode, photo
from tests.running import Service

_TIMEOUT_S = 20
_CURL = shutil.which("curl")
needs_curl = pytest.mark.skipif(_CURL is None, reason="needs curl")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three photos."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{seed}.jpg" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(encode(photo(seed)))
    return paths


@pytest.fixture(scope="module")
def expected(service: Service, files: list[Path]) -> list[Any]:
    """Labels and scores of the photos, asked for one by one."""
    return [_seen(service.classify(path.read_bytes()).json)[0] for path in files]


def _seen(answer: Any) -> list[Any]:
    return [(one["label"], pytest.approx(one["score"], abs=1e-6)) for one in answer["results"]]


def _curl(*arguments: str) -> Any:
    assert _CURL
    command = [_CURL, "--silent", "--show-error", "--fail-with-body", "--max-time", str(_TIMEOUT_S), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def _document(files: list[Path]) -> dict[str, Any]:
    images = [{"filename": path.name, "b64": base64.b64encode(path.read_bytes()).decode()} for path in files]
    return {"images": images}


@needs_curl
def test_curl(service: Service, files: list[Path], expected: list[Any], tmp_path: Path) -> None:
    """`--data-binary @FILE`, `-F file=@FILE` several times, and JSON from a file."""
    url = f"{service.http}/classify"
    assert _seen(_curl("--data-binary", f"@{files[0]}", url)) == expected[:1]
    forms = [part for path in files for part in ("-F", f"file=@{path}")]
    answer = _curl(*forms, url)
    assert [one["filename"] for one in answer["results"]] == [path.name for path in files]
    assert _seen(answer) == expected
    (tmp_path / "body.json").write_text(json.dumps(_document(files)))
    json_body = ["-H", "Content-Type: application/json", "--data-binary", f"@{tmp_path / 'body.json'}"]
    assert _seen(_curl(*json_body, f"{url}?model=pets&top_k=1")) == expected


@needs_curl
def test_curl_sends_large_bodies_in_its_own_ways(service: Service, files: list[Path], expected: list[Any]) -> None:
    """With `Expect: 100-continue`, and in chunks from standard input, whose length it does not know."""
    url = f"{service.http}/classify"
    assert _seen(_curl("-H", "Expect: 100-continue", "--data-binary", f"@{files[0]}", url)) == expected[:1]
    assert _seen(_curl("-H", "Transfer-Encoding: chunked", "-T", str(files[0]), "-X", "POST", url)) == expected[:1]


def test_requests(service: Service, files: list[Path], expected: list[Any]) -> None:
    """`data=`, `files=` and `json=`, on one session."""
    url = f"{service.http}/classify"
    with requests.Session() as session:
        raw = session.post(url, data=files[0].read_bytes(), timeout=_TIMEOUT_S)
        opened = [("file", (path.name, path.read_bytes())) for path in files]
        form = session.post(url, files=opened, timeout=_TIMEOUT_S)
        document = session.post(url, json=_document(files), timeout=_TIMEOUT_S)
        wrong = session.post(url, json={}, timeout=_TIMEOUT_S)
    assert _seen(raw.json()) == expected[:1]
    assert _seen(form.json()) == _seen(document.json()) == expected
    assert (wrong.status_code, wrong.json()["code"]) == (400, "INVALID_REQUEST")
    assert all(answer.headers["X-Request-Id"] for answer in (raw, form, document, wrong))
