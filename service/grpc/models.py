"""ListModels and GetModel: the routing table and the manifests as messages."""

from collections.abc import Mapping
from pathlib import Path

from protos.classifier_pb2 import GetModelRequest, ListModelsResponse, Model, ModelVersion
from service.errors import BrokenVersion, InvalidRequest
from service.manifest import read_manifest
from service.routes import ModelRoute, Routes, VersionRoute


def list_models(routes: Routes) -> ListModelsResponse:
    """Every model, by name; none while nothing is loaded."""
    return ListModelsResponse(
        models=[_model(name, route, route.versions) for name, route in sorted(routes.models.items())]
    )


def get_model(routes: Routes, models: Path, request: GetModelRequest) -> Model:
    """One model, its manifests read from the models directory.

    Args:
        routes: what is served.
        models: the models directory.
        request: whose name may be empty for the only model, and whose version 0 for all.

    Raises:
        InvalidRequest: a negative version, or a version and a label.
        ModelNotFound: there is no such model, version or label.
    """
    if request.version < 0:
        raise InvalidRequest(f"expected version to be 0 (all) or larger, got {request.version}")
    states = routes.states(request.model, request.version, request.label)
    name = request.model or next(iter(routes.models))
    model = _model(name, routes.models[name], states)
    for version in model.versions:
        try:
            manifest = read_manifest(models / name / str(version.version))
        except BrokenVersion as error:  # said already when it was refused; one that serves may have been removed since
            version.error = version.error or error.detail
            continue
        version.created = manifest.created
        version.class_names.extend(manifest.class_names)
        version.image.CopyFrom(manifest.image)
        version.metrics.CopyFrom(manifest.metrics)
        version.unknown_threshold = manifest.unknown_threshold
    return model


def _model(name: str, route: ModelRoute, states: Mapping[int, VersionRoute]) -> Model:
    versions = [
        ModelVersion(version=number, state=one.state, engine=one.engine, engines=len(one.sockets), error=one.error)
        for number, one in sorted(states.items())
    ]
    return Model(name=name, live_version=route.live, versions=versions, labels=route.labels)
