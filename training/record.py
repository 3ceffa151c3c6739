"""What a run says of itself in the version's manifest."""

import importlib.metadata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from protos.manifest_pb2 import (
    Calibration,
    DataFingerprint,
    Evidence,
    ImageSpec,
    Manifest,
    Metrics,
    Phase,
    Recipe,
)
from service.version import SCHEMA_VERSION
from training import evaluation
from training.dataset import Dataset
from training.settings import Settings
from training.task import Task, Trained, Tried

_LIBRARIES: Final = ("graft", "tensorflow", "keras", "numpy", "pillow", "scikit-learn", "openvino")


def manifest(
    settings: Settings, dataset: Dataset, task: Task, trained: Trained, *, backbone: str, weights: str
) -> Manifest:
    """Everything but the version's number, the test metrics, the phases and the hashes."""
    spec = task.spec
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=settings.name,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        class_names=task.class_names,
        image=ImageSpec(
            side_px=spec.side_px, resize=spec.resize, resample=spec.resample, decode_version=spec.decode_version
        ),
        recipe=_recipe(settings, task, trained, backbone, weights),
        metrics=Metrics(
            validation=evaluation.evaluate(
                trained.held_out_labels(task), trained.scores.argmax(axis=1), task.class_names
            )
        ),
        data=DataFingerprint(
            sha256=dataset.sha256,
            images=len(dataset.images),
            unreadable=len(dataset.rejected),
            train=len(task.split.train),
            validation=len(task.split.validation),
            test=len(task.split.test),
            duplicates=len(task.split.duplicates_left_out),
        ),
        calibration=Calibration(temperature=trained.temperature),
        unknown_threshold=trained.unknown_threshold,
        library_versions=_libraries(),
    )


def phases(seconds: Mapping[str, float]) -> list[Phase]:
    """Seconds by phase, in order, for `Manifest.recipe.phases`."""
    return [Phase(name=name, seconds=round(spent, 3)) for name, spent in seconds.items()]


def _recipe(settings: Settings, task: Task, trained: Trained, backbone: str, weights: str) -> Recipe:
    common = {
        "test_fraction": f"{settings.test_fraction:g}",
        "validation_fraction": f"{settings.validation_fraction:g}",
    }
    if settings.group_regex is not None:
        common["group_regex"] = settings.group_regex
    return Recipe(
        strategy=trained.strategy or settings.strategy,
        backbone=backbone,
        weights=weights,
        seed=task.seed,
        trained_parameters=trained.trained_parameters,
        total_parameters=_parameters(trained.model),
        hyperparameters={**common, **trained.hyperparameters},
        command=settings.command,
        evidence=[
            Evidence(candidate=_words(one), validation_accuracy=one.validation_accuracy, seconds=one.seconds)
            for one in trained.tried
        ],
    )


def _words(tried: Tried) -> str:
    if not tried.images:
        return tried.candidate
    low, high = evaluation.wilson(round(tried.validation_accuracy * tried.images), tried.images)
    evidence = f"95 %: {low:.4f}-{high:.4f}, {tried.images} images, {tried.parameters:,} parameters trained"
    return f"{tried.candidate} ({evidence})"


def _parameters(model: Any) -> int:  # noqa: ANN401 - keras is untyped
    return int(model.count_params())


def _libraries() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
