"""One audit, from DATA to what is printed and written: the story, in order."""

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from service.image import ImageSpec
from training import dataset, duplicates, grouping, quiet
from training.audit import findings, layout, page, terminal
from training.audit.findings import Audit
from training.dataset import Dataset
from training.errors import DataError, SettingError, WeightsUnavailable
from training.progress import Phases
from training.settings import AuditSettings, Settings


def run(settings: AuditSettings, console: Console) -> Audit:
    """Audits DATA; prints what was found and writes what was asked for.

    Raises:
        DataError: DATA cannot be indexed, or changed meanwhile.
        SettingError: what was asked for cannot be done.
        OSError: a file cannot be written.
    """
    if not settings.data.exists():
        raise DataError(f"expected a folder, a .csv or a .zip file at {settings.data}; there is nothing")
    pattern = grouping.compile_regex(settings.group_regex) if settings.group_regex is not None else None
    for file in (settings.json, settings.html):
        if file is not None and not file.resolve().parent.is_dir():
            raise SettingError(f"expected a folder to write {file} to; there is no {file.parent}")
    phases = Phases(console)
    if settings.label_check:
        with phases.phase("loading TensorFlow"):
            quiet.import_keras()
            from training import backbones  # noqa: PLC0415 - imports Keras

            backbones.find(settings.backbone)  # a wrong name should not cost an index
    with phases.phase("indexing") as advance:
        found = dataset.index(settings.data, settings.cache, on_progress=advance)
    with phases.phase("comparing"):
        groups = duplicates.group(found.images)
        blocks = groups if pattern is None else grouping.merge(groups, grouping.by_path(found, pattern))
        audit = Audit(found, tuple(findings.look(found, groups, blocks)))
    if settings.label_check:
        audit = _with_label_errors(audit, blocks, settings, phases)
    console.print()
    terminal.show(audit, console)
    console.print()
    if settings.json is not None:
        layout.write(audit, settings.json)
        console.print(f"everything is listed in {settings.json}", markup=False)
    if settings.html is not None:
        page.write(audit, settings.html, settings.command)
        console.print(f"pictures are in {settings.html}", markup=False)
    elif audit.findings:
        console.print("--html FILE shows the pictures, --json FILE lists them all", markup=False)
    return audit


def _with_label_errors(audit: Audit, blocks: list[int], settings: AuditSettings, phases: Phases) -> Audit:
    from training.audit import labels  # noqa: PLC0415 - imports SciPy

    found = audit.dataset
    number = {name: at for at, name in enumerate(found.class_names)}
    given = np.array([number[image.label] for image in found.images], np.intp)
    try:
        scores, held_out = _out_of_fold(found, given, blocks, settings, phases)
    except WeightsUnavailable as error:
        return Audit(found, audit.findings, (f"label errors were not looked for: {error}",))
    unseen = set(range(len(number))) - set(given[held_out].tolist())
    left_out = []
    if unseen:
        names = ", ".join(found.class_names[at] for at in sorted(unseen))
        left_out.append(
            f"label errors were not looked for in {names}: too few different pictures to hold some of them back"
        )
    wrong = labels.finding(found, scores, given, held_out)
    shown = findings.in_order([*audit.findings, *([wrong] if wrong.count else [])])
    return Audit(found, tuple(shown), tuple(left_out))


def _out_of_fold(
    found: Dataset, labels: NDArray[np.intp], blocks: list[int], settings: AuditSettings, phases: Phases
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What a linear head says of images, float32 [N,C], and which of them it was not fitted on, [N]."""
    import keras  # noqa: PLC0415 - four seconds that other audits need not wait for

    from training import backbones, features, linear  # noqa: PLC0415 - import Keras

    with phases.phase("loading the backbone"):
        keras.utils.set_random_seed(settings.seed)  # for --weights none
        backbone = backbones.load(backbones.find(settings.backbone), settings.weights)
    with phases.phase("computing features") as advance:
        spec = ImageSpec(backbone.side_px, Settings.resize)  # as in `train`, which finds the features then
        computed = features.compute(found.images, backbone, spec, settings.cache, on_progress=advance)
    with phases.phase("checking labels") as advance:
        head = linear.fit(computed, labels, blocks, len(found.class_names), seed=settings.seed, on_progress=advance)
    return head.scores, head.held_out if head.tried else np.zeros_like(head.held_out)
