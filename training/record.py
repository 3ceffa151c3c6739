"""What a run says of itself in the version's manifest."""

import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from protos.manifest_pb2 import (
    AuditFinding,
    AuditSummary,
    Calibration,
    ClassImages,
    DataFingerprint,
    Decision,
    Depth,
    Evidence,
    ImageSpec,
    Manifest,
    Metrics,
    Phase,
    Recipe,
    TextbookCase,
)
from service.version import SCHEMA_VERSION
from training import evaluation
from training.audit.findings import Audit
from training.dataset import Dataset, printable
from training.settings import Settings
from training.task import Task, Trained, Tried

SIDES: Final = ("train", "validation", "test")
_LIBRARIES: Final = (
    "graft",
    "tensorflow",
    "keras",
    "numpy",
    "pillow",
    "scikit-learn",
    "openvino",
    "nncf",
    "matplotlib",
)
_MOST_NAMED: Final = 12


def manifest(
    settings: Settings, audit: Audit, task: Task, trained: Trained, *, backbone: str, weights: str
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
        data=fingerprint(audit.dataset, task),
        audit=AuditSummary(
            findings=[
                AuditFinding(kind=one.kind, severity=one.severity, count=one.count, unit=one.unit, title=one.title)
                for one in audit.findings
            ]
        ),
        calibration=Calibration(temperature=trained.temperature),
        unknown_threshold=trained.unknown_threshold,
        library_versions=_libraries(),
    )


def fingerprint(dataset: Dataset, task: Task) -> DataFingerprint:
    """What there is and how it was split, by class too."""
    positions = {side: getattr(task.split, side) for side in SIDES}
    counts = {side: Counter(task.images[at].label for at in positions[side]) for side in SIDES}
    given = {image.split for image in dataset.images}
    tested = sorted(task.images[at].sha256 for at in task.split.test)
    return DataFingerprint(
        sha256=dataset.sha256,
        images=len(dataset.images),
        unreadable=len(dataset.rejected),
        duplicates=len(task.split.duplicates_left_out),
        classes=[ClassImages(label=name, **{side: counts[side][name] for side in SIDES}) for name in task.class_names],
        given_splits=[side for side in SIDES if side in given],
        test_sha256=hashlib.sha256("".join(tested).encode()).hexdigest(),
        **{side: len(positions[side]) for side in SIDES},
    )


def untested(data: DataFingerprint) -> str:
    """Which classes have no test images, and why, in a sentence; empty where there are none, or no test at all."""
    missing = [one.label for one in data.classes if not one.test]
    if not missing or not data.test:
        return ""
    names = ", ".join(missing[:_MOST_NAMED]) + (", ..." if len(missing) > _MOST_NAMED else "")
    if "test" in data.given_splits:
        why = "DATA's own test images have none that can be used"
    else:
        why = "their images are in too few blocks that may be parted (duplicates, --group-regex, two labels)"
    return f"{names}: {why}, so the test says nothing about {'it' if len(missing) == 1 else 'them'}"


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
        command=printable(settings.command),
        evidence=[_evidence(one, winner=at == 0) for at, one in enumerate(trained.tried)],
        decision=_decision(trained),
    )


def _evidence(tried: Tried, *, winner: bool) -> Evidence:
    right = round(tried.validation_accuracy * tried.images)
    return Evidence(
        candidate=tried.candidate,
        validation_accuracy=tried.validation_accuracy,
        accuracy_interval=evaluation.wilson(right, tried.images),
        images=tried.images,
        parameters=tried.parameters,
        seconds=tried.seconds,
        winner=winner,
    )


def _decision(trained: Trained) -> Decision | None:
    decision = trained.decision
    if decision is None:
        return None
    return Decision(
        textbook_case=TextbookCase(size=decision.size, domain=decision.domain, rule=decision.rule),
        reason=decision.reason,
        fine_tuning=decision.fine_tuning,
        budget_seconds=decision.budget_s,
        spent_seconds=decision.spent_s,
        depths=[Depth(layer=layer, logme=value) for layer, value in decision.logme.items()],
    )


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
