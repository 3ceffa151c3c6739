"""HandleReloadConfigRequest changes what is served, for whoever has the admin token, and says what it cannot do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import tensorflow_serving_pb2 as tfs
from service.policy import Policy
from service.reload import read_reload
from service.routes import ModelRoute, Routes
from service.tensors import Refusal
from tests.conftest import VersionFactory
from tests.pictures import plain
from tests.running import Service, eventually

_TOKEN = "a-token-of-some-length"  # noqa: S105 - of a service that lives for this test
_METHOD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
_ROUTES = Routes({"pets": ModelRoute(1, {})})


def _request(*entries: dict[str, Any]) -> tfs.ReloadConfigRequest:
    return tfs.ReloadConfigRequest(config={"model_config_list": {"config": entries}})


@pytest.fixture(scope="module")
def models(version_factory: VersionFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of one model, and the token's file beside them."""
    folder: Path = tmp_path_factory.mktemp("reload")
    for number in (1, 2):
        version_factory(folder / "models", number=number)
    (folder / "token").write_text(_TOKEN)
    return folder / "models"


def _reload(service: Service, *entries: dict[str, Any], token: str = _TOKEN) -> tfs.ReloadConfigResponse:
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.unary_unary(
            _METHOD, tfs.ReloadConfigRequest.SerializeToString, tfs.ReloadConfigResponse.FromString
        )
        answer: tfs.ReloadConfigResponse = call(
            _request(*entries), timeout=20, metadata=[("authorization", f"Bearer {token}")]
        )
        return answer


def test_versions_and_labels_are_applied(models: Path, start_service: Callable[..., Service]) -> None:
    """What the next look at the models directory finds is what was asked for; wrong requests change nothing."""
    service = start_service(models, engine="openvino/f32", admin_token_file=models.parent / "token")
    assert service.live() == 2
    file = models / "pets" / "serving.json"

    assert _reload(service, {"name": "pets", "base_path": "/models/pets"}).status.error_code == tfs.OK
    assert not file.exists()

    _reload(service, {"name": "pets", "model_version_policy": {"specific": {"versions": [1]}}})
    eventually(lambda: service.live() == 1, "version 1 is live")

    both = {"latest": {"num_versions": 2}}
    _reload(service, {"name": "pets", "model_version_policy": both, "version_labels": {"canary": 2, "stable": 1}})
    eventually(lambda: service.classify(plain("red"), "?label=canary").status == 200, "the canary answers")
    assert json.loads(file.read_text())["labels"] == {"canary": 2, "stable": 1}
    assert service.classify(plain("red"), "?label=canary").json["version"] == 2
    assert service.classify(plain("red")).json["version"] == 1

    before = file.read_text()
    for entry, token, status, says in (
        ({"version_labels": {"canary": 1}}, "another-token-of-some-length", "UNAUTHENTICATED", "with the admin token"),
        ({"version_labels": {"canary": 9}}, _TOKEN, "INVALID_ARGUMENT", "label canary names version 9, which is not"),
        ({"version_labels": {"no label": 1}}, _TOKEN, "INVALID_ARGUMENT", "expected a label of letters"),
        ({"model_version_policy": {"specific": {"versions": [7]}}}, _TOKEN, "INVALID_ARGUMENT", "names version 7"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            _reload(service, {"name": "pets"} | entry, token=token)
        assert refused.value.code() is grpc.StatusCode[status]
        assert says in refused.value.details()
    assert file.read_text() == before

    _reload(service, {"name": "pets", "model_version_policy": {"latest": {}}})
    eventually(lambda: service.live() == 2, "what is left out of an entry takes its default: no label, the latest one")


def test_without_a_token_file_nothing_can_be_changed(service: Service) -> None:
    """As over HTTP, where /admin does not exist then."""
    with pytest.raises(grpc.RpcError) as refused:
        _reload(service, {"name": "pets", "version_labels": {"canary": 1}})
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "--admin-token-file" in refused.value.details()
    assert not (service.models / "pets" / "serving.json").exists()


@pytest.mark.parametrize(
    ("entry", "before", "after"),
    [
        ({"model_version_policy": {"latest": {"num_versions": 3}}}, Policy(), Policy(3)),
        ({"model_version_policy": {"latest": {}}}, Policy(5), Policy(1)),
        ({"model_version_policy": {}}, Policy(5), Policy(1)),
        ({"model_version_policy": {"all": {}}}, Policy(), Policy(10**9)),
        ({"model_version_policy": {"specific": {"versions": [3, 1, 3]}}}, Policy(2), Policy(1, (1, 3))),
        ({"version_labels": {"canary": 2}}, Policy(4, labels={"x": 1}), Policy(1, labels={"canary": 2})),
        (
            {"version_labels": {"canary": 2}},
            Policy(labels={"canary": 1}, canary_share=0.1),
            Policy(labels={"canary": 2}, canary_share=0.1),
        ),
        (
            {"version_labels": {"stable": 2}},
            Policy(labels={"canary": 1}, canary_share=0.1),
            Policy(labels={"stable": 2}),
        ),
    ],
)
def test_an_entry_is_the_whole_wish(entry: dict[str, Any], before: Policy, after: Policy) -> None:
    """Versions, labels or both; what is left out takes TensorFlow Serving's default."""
    wishes = read_reload(_request({"name": "pets"} | entry), _ROUTES)
    assert wishes["pets"](before, [1, 2, 3]) == after


@pytest.mark.parametrize(
    ("entries", "status", "says"),
    [
        (({"name": "pets"}, {"name": "pets"}), "INVALID_ARGUMENT", "Illegal to list model pets multiple times"),
        (({"name": "pets"}, {"name": "cats"}), "NOT_FOUND", "expected a model of the models directory, got 'cats'"),
        ((), "FAILED_PRECONDITION", "expected every model to be listed, pets is not: to unload a model, remove its"),
        (
            ({"name": "pets", "model_version_policy": {"specific": {}}},),
            "INVALID_ARGUMENT",
            "expected a specific version of pets, got none",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(entries: tuple[dict[str, Any], ...], status: str, says: str) -> None:
    """Before anything is changed."""
    with pytest.raises(Refusal) as refused:
        read_reload(_request(*entries), _ROUTES)
    assert refused.value.status == status
    assert says in refused.value.detail
