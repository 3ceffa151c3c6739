"""TensorFlow Serving's model configuration as wishes of ours: HandleReloadConfigRequest, read.

A configuration is the whole wish there: it names every model, and what it leaves out of an entry has its default. Here
the models are those of the models directory, whatever their base paths and platforms are said to be, so an entry can
only say which versions are served and how they are labelled; one that says neither changes nothing.
"""

from collections.abc import Mapping
from typing import Final

from protos import tensorflow_serving_pb2 as tfs
from service.policy import Change, Policy
from service.routes import CANARY, Routes
from service.tensors import Refusal

_ALL: Final = 10**9
"""More versions than a directory holds: a policy's `latest` for TensorFlow Serving's `all`."""


def read_reload(request: tfs.ReloadConfigRequest, routes: Routes) -> Mapping[str, Change]:
    """What the request changes, by model.

    Raises:
        Refusal: it asks for what cannot be done, in TensorFlow Serving's words where it has any.
    """
    if request.config.WhichOneof("config") != "model_config_list":
        raise Refusal(
            "INVALID_ARGUMENT",
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported",
        )
    entries: dict[str, tfs.ModelConfig] = {}
    for entry in request.config.model_config_list.config:
        if entry.name in entries:
            raise Refusal("INVALID_ARGUMENT", f"Illegal to list model {entry.name[:200]} multiple times in config list")
        if entry.name not in routes.models:
            raise Refusal("NOT_FOUND", f"expected a model of the models directory, got {entry.name[:200]!r}")
        entries[entry.name] = entry
    if left_out := sorted(routes.models.keys() - entries.keys()):
        raise Refusal(
            "FAILED_PRECONDITION",
            f"expected every model to be listed, {', '.join(left_out)[:200]} is not: to unload a model, remove its "
            "directory",
        )
    return {
        name: _wish(entry)
        for name, entry in entries.items()
        if entry.HasField("model_version_policy") or entry.version_labels
    }


def _wish(entry: tfs.ModelConfig) -> Change:
    versions, labels = entry.model_version_policy, dict(entry.version_labels)
    specific = tuple(sorted(set(versions.specific.versions)))
    if versions.HasField("specific") and not specific:
        raise Refusal("INVALID_ARGUMENT", f"expected a specific version of {entry.name[:200]}, got none")
    latest = _ALL if versions.HasField("all") else max(1, versions.latest.num_versions)  # 0 is 1 there, too

    def change(before: Policy, _: object) -> Policy:
        # a canary's share is ours alone: it stays for as long as there is a canary
        return Policy(latest, specific, labels, before.canary_share if CANARY in labels else 0.0)

    return change
