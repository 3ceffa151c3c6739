"""ListModels and GetModel of running services."""

from pathlib import Path

import grpc
import pytest

from protos.classifier_pb2 import GetModelRequest, ListModelsRequest
from protos.classifier_pb2_grpc import ImageClassifierStub
from service.errors import GraftError, InvalidRequest, ModelNotFound
from service.grpc.models import get_model, list_models
from service.routes import ModelRoute, Routes, VersionRoute
from tests.conftest import CLASSES, SIDE_PX, VersionFactory


def test_a_running_service_lists_its_models(stub: ImageClassifierStub) -> None:
    """Name, live version, state, engine and number of engines; nothing of the manifest."""
    (model,) = stub.ListModels(ListModelsRequest(), timeout=20).models
    (version,) = model.versions
    assert (model.name, model.live_version, version.version, version.state) == ("pets", 1, 1, "AVAILABLE")
    assert (version.engine, version.engines, version.error) == ("openvino/f32", 2, "")
    assert not version.class_names


@pytest.mark.parametrize("asked", [{}, {"model": "pets"}, {"model": "pets", "version": 1}, {"version": 1}], ids=str)
def test_a_running_service_describes_a_model(stub: ImageClassifierStub, asked: dict[str, object]) -> None:
    """Class names in the order of the scores, and how pixels are made."""
    model = stub.GetModel(GetModelRequest(**asked), timeout=20)
    (version,) = model.versions
    assert (model.name, model.live_version) == ("pets", 1)
    assert list(version.class_names) == list(CLASSES)
    assert (version.image.side_px, version.image.resize, version.image.resample) == (SIDE_PX, "squash", "bilinear")


@pytest.mark.parametrize(
    ("asked", "status", "code", "says"),
    [
        ({"model": "cats"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "no model 'cats'; there are: pets"),
        ({"version": 7}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "no version 7 of 'pets'; there are: [1]"),
        ({"version": -1}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "got -1"),
    ],
    ids=["model", "version", "negative"],
)
def test_what_does_not_exist_is_said(stub: ImageClassifierStub, asked, status, code: str, says: str) -> None:
    """With the same codes as Classify."""
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetModel(GetModelRequest(**asked), timeout=20)
    assert (refused.value.code(), dict(refused.value.trailing_metadata())["graft-error-code"]) == (status, code)
    assert says in refused.value.details()


@pytest.fixture
def routes() -> Routes:
    """Two models; of pets, one version serves, one was refused and one loads."""
    pets = {
        1: VersionRoute("AVAILABLE", ("a", "b"), "openvino/f32"),
        2: VersionRoute("END", error="broken"),
        3: VersionRoute("LOADING"),
    }
    return Routes({"pets": ModelRoute(1, pets), "cars": ModelRoute(0, {5: VersionRoute("LOADING")})})


def test_every_version_is_told_also_those_that_do_not_serve(
    version_factory: VersionFactory, tmp_path: Path, routes: Routes
) -> None:
    """A manifest that is not there costs the details of that version alone, and a reason that is known is kept."""
    version_factory(tmp_path, "pets", 1)
    version_factory(tmp_path, "pets", 3, class_names=("w", "x", "y", "z"), unknown_threshold=0.25)
    assert [(one.name, one.live_version) for one in list_models(routes).models] == [("cars", 0), ("pets", 1)]
    first, second, third = get_model(routes, tmp_path, GetModelRequest(model="pets")).versions
    assert (first.engines, list(first.class_names), first.error) == (2, list(CLASSES), "")
    assert (second.state, second.error, list(second.class_names)) == ("END", "broken", [])
    assert (third.state, list(third.class_names), third.unknown_threshold) == ("LOADING", ["w", "x", "y", "z"], 0.25)
    (only,) = get_model(routes, tmp_path, GetModelRequest(model="pets", version=3)).versions
    assert only == third
    (lost,) = get_model(routes, tmp_path, GetModelRequest(model="cars")).versions
    assert lost.error == "expected a manifest at manifest.json, found no file"


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [({}, ModelNotFound, "there are: cars, pets"), ({"model": "pets", "version": -2}, InvalidRequest, "got -2")],
    ids=["no name", "negative"],
)
def test_a_name_may_be_left_out_only_when_there_is_one(
    tmp_path: Path, routes: Routes, asked: dict[str, object], error: type[GraftError], says: str
) -> None:
    """The message lists the names."""
    with pytest.raises(error, match=says):
        get_model(routes, tmp_path, GetModelRequest(**asked))
