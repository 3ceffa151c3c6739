"""One training run, from a folder of photos to a published version directory: the story, in order.

Nothing is visible to a server before the last step, one rename. A run that fails or is interrupted removes what it was
writing; one that is killed leaves a folder that no server takes for a version, and the next run removes it. Gradient
training goes on where it was interrupted (training/checkpoint.py); its checkpoints go when a version is published.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from protos.manifest_pb2 import DataFingerprint, Evaluation, Manifest
from service.image import ImageSpec
from service.policy import FILE as POLICY
from service.policy import BrokenPolicy, read_policy
from service.published import list_versions
from service.routes import STABLE
from service.version import REPORT, UNFINISHED, next_number, publish, remove_unfinished, write_manifest
from training import dataset, duplicates, grouping, quiet, split
from training.audit import findings, page, terminal
from training.audit.findings import Audit
from training.checkpoint import run_folder
from training.dataset import Dataset
from training.errors import DataError, SettingError, WorseThanChampion
from training.progress import Phases
from training.settings import Settings
from training.task import Task

if TYPE_CHECKING:  # imports the engines' classifier
    from training.evaluation import Prediction
    from training.report.verdict import Verdict

_SPARE_BYTES = 100 << 20


def run(settings: Settings, console: Console) -> Path:
    """Trains, exports, evaluates and publishes.

    Returns:
        The published version directory.

    Raises:
        DataError: the data cannot be trained on.
        SettingError: what was asked for cannot be done.
        WorseThanChampion: what is live is better.
        GraftError: the export does not answer as it should; nothing was published.
        OSError: the disk is full, or something else that the machine did.
    """
    if not settings.data.exists():
        raise DataError(f"expected a folder, a .csv or a .zip file at {settings.data}; there is nothing")
    if settings.group_regex is not None:
        grouping.compile_regex(settings.group_regex)
    unfinished = _make_unfinished(settings)
    try:
        with run_folder(settings, console) as folder:
            return _run(replace(settings, run_folder=folder), unfinished, Phases(console))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _run(settings: Settings, unfinished: Path, phases: Phases) -> Path:
    # ---- TensorFlow, the backbone and its weights: first, so that a wrong name does not cost an index ----
    with phases.phase("loading TensorFlow"):
        quiet.import_keras()
        from service.offline import OfflineClassifier  # noqa: PLC0415 - imports gRPC's messages and the decode
        from training import evaluation, export, gallery, goldens, graph, quantization, record, strategies  # noqa: PLC0415 - import Keras
    if settings.quantize and not quantization.can_test():
        raise SettingError("expected a CPU with instructions for 8 bits (VNNI or AMX) for --quantize: this has none")
    with phases.phase("loading the backbone"):
        strategy = strategies.prepare(settings)

    # ---- The data: what there is, what is the same, what is on which side ----
    with phases.phase("indexing") as advance:
        found = dataset.index(settings.data, settings.cache, on_progress=advance)
    with phases.phase("splitting"):
        spec = ImageSpec(strategy.side_px, settings.resize)
        groups, blocks = make_groups(settings, found)
        task = make_task(settings, found, spec, groups, blocks)
    audit = Audit(found, tuple(findings.look(found, groups, blocks)))
    _describe(phases.console, found, record.fingerprint(found, task))
    terminal.brief(audit, phases.console)

    # ---- Training ----
    trained = strategy.train(task, phases)

    # ---- The export, with goldens and a manifest that lacks only what the test will say ----
    with phases.phase("exporting"):
        _check_space(unfinished, 4 * 4 * trained.model.count_params() + _SPARE_BYTES)
        frozen = graph.frozen(trained.model)
        serving_bytes, maps = export.write_saved_model(frozen, task.class_names, spec, unfinished)
        candidates = task.pick(trained.held_out)
        chosen = [candidates[at] for at in goldens.choose(candidates, trained.held_out_labels(task), trained.scores)]
        written = goldens.write(chosen, lambda images: graph.run(frozen, images), spec, unfinished)
        export.write_warmup(written.pixels[0], settings.name, unfinished)
        parity = export.parity(serving_bytes, written.files, written.pixels, written.scores, spec)
        manifest = record.manifest(
            settings, audit, task, trained, backbone=strategy.backbone_name, weights=strategy.weights_name
        )
        if parity is not None:
            manifest.serving_bytes.CopyFrom(parity)
        if maps is not None:
            manifest.class_activation_maps.CopyFrom(maps)
        manifest.version = next_number(settings.models, settings.name)
        write_manifest(unfinished, manifest)

    # ---- The test: that directory, through the service's own classifier ----
    with phases.phase("testing the export") as advance, OfflineClassifier(unfinished, settings.engine) as classifier:
        predictions, engine = evaluation.ask(classifier, task.pick(task.split.test), advance), classifier.engine
        mistakes = gallery.look(classifier, predictions)
    labels, answers = task.labels[list(task.split.test)], _numbers(predictions, task)
    manifest.metrics.test.CopyFrom(evaluation.evaluate(labels, answers, task.class_names, engine))

    # ---- The network once more in 8 bits, where it answers as well ----
    served: Sequence[Prediction] = predictions
    if settings.quantize:
        served = _quantize(unfinished, manifest, task, predictions, phases) or predictions

    # ---- The live version's answers to the same images ----
    if settings.champion:
        _challenge(settings, manifest, served, phases)

    # ---- The report, the final manifest, and one rename ----
    with phases.phase("publishing"):
        from training.report import version as report  # noqa: PLC0415 - matplotlib: late, for nothing before needs it

        manifest.recipe.phases.extend(record.phases(phases.seconds))
        write_report = partial(
            report.write,
            unfinished,
            manifest,
            found,
            epochs=trained.epochs,
            predictions=predictions,
            confusion=evaluation.confusion(labels, answers, task.classes),
            audit=page.section(audit),
            mistakes=gallery.section(mistakes, found),
        )
        published, said = _publish(unfinished, manifest, settings, write_report)
    _summarise(phases, manifest, said.sentence, published, settings)
    return published


def _make_unfinished(settings: Settings) -> Path:
    folder = settings.models / settings.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(settings.models, settings.name)
        unfinished = folder / f"{UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}"
        unfinished.mkdir()
        settings.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"expected to be able to write to {error.filename}: {error.strerror}") from error
    return unfinished


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise SettingError(
            f"expected {needed_bytes >> 20} MiB of free disk for the version in {folder.parent}, found {free >> 20} MiB"
        )


def make_groups(settings: Settings, found: Dataset) -> tuple[list[int], list[int]]:
    """Which images show the same picture, and which stay together (blocks of groups)."""
    groups = duplicates.group(found.images)
    if settings.group_regex is None:
        return groups, groups
    pattern = grouping.compile_regex(settings.group_regex)
    return groups, grouping.merge(groups, grouping.by_path(found, pattern))


def make_split(settings: Settings, found: Dataset, groups: list[int], blocks: list[int]) -> split.Split:
    """Which images are to train, to validate and to test on."""
    return split.split(
        found.images,
        groups,
        blocks=blocks,
        seed=settings.seed,
        validation=settings.validation_fraction,
        test=settings.test_fraction,
    )


def make_task(settings: Settings, found: Dataset, spec: ImageSpec, groups: list[int], blocks: list[int]) -> Task:
    """Splits, and numbers the classes."""
    sides = make_split(settings, found, groups, blocks)
    number = {name: at for at, name in enumerate(found.class_names)}
    labels = np.array([number[image.label] for image in found.images], np.intp)
    return Task(found.images, labels, blocks, found.class_names, sides, spec, settings.seed)


def _numbers(predictions: "Sequence[Prediction]", task: Task) -> NDArray[np.intp]:
    number = {name: at for at, name in enumerate(task.class_names)}
    return np.array([number[one.predicted] for one in predictions], np.intp)


def _quantize(
    unfinished: Path, manifest: Manifest, task: Task, predictions: "Sequence[Prediction]", phases: Phases
) -> "Sequence[Prediction]":
    """Adds the quantized network and what it is worth; where that is less, leaves it out and returns nothing."""
    from training import evaluation, quantization  # noqa: PLC0415 - imports the engines' classifier

    try:
        with phases.phase("quantizing") as advance:
            quantization.write(unfinished, task.pick(task.split.train), task.spec, advance)
            write_manifest(unfinished, manifest)
        with phases.phase("testing it in 8 bits") as advance:
            answered = quantization.test(unfinished, predictions, advance)
    except Exception as error:  # noqa: BLE001 - NNCF and OpenVINO raise anything; what was trained is worth publishing
        quantization.remove(unfinished)
        said = str(error).strip() or type(error).__name__
        phases.console.print(f"not quantized: {said.splitlines()[0]}", markup=False)
        return ()
    labels = task.labels[list(task.split.test)]
    manifest.metrics.quantized.CopyFrom(
        evaluation.evaluate(labels, _numbers(answered, task), task.class_names, quantization.ENGINE)
    )
    return answered


def _challenge(settings: Settings, manifest: Manifest, predictions: "Sequence[Prediction]", phases: Phases) -> None:
    """Compares with the live version, records it, and refuses to go on where the new one is worse."""
    from training import champion  # noqa: PLC0415 - SciPy

    with phases.phase("asking the champion") as advance:
        comparison = champion.compare(
            settings.models,
            settings.name,
            predictions,
            class_names=manifest.class_names,
            test_sha256=manifest.data.test_sha256,
            engine=settings.engine,
            on_progress=advance,
        )
    if comparison is None:
        phases.console.print(f"nothing of the name {settings.name} is published yet; there is no champion")
        return
    sentence = champion.describe(comparison)
    if comparison.worse and not settings.publish_anyway:
        raise WorseThanChampion(
            f"the new version is {sentence}; nothing was published. --publish-anyway publishes it all the same"
        )
    phases.console.print(f"champion: {sentence}", markup=False)
    manifest.champion.CopyFrom(comparison)


def _publish(
    unfinished: Path, manifest: Manifest, settings: Settings, write_report: Callable[[], "Verdict"]
) -> "tuple[Path, Verdict]":
    while True:
        said = write_report()
        write_manifest(unfinished, manifest)
        try:
            return publish(unfinished, settings.models, settings.name), said
        except FileExistsError:  # another trainer was faster; the report names the version, too
            manifest.version = next_number(settings.models, settings.name)
            shutil.rmtree(unfinished / REPORT)


def _describe(console: Console, found: Dataset, data: DataFingerprint) -> None:
    from training import record  # noqa: PLC0415 - imports the engines' classifier

    console.print(
        f"{data.images} images in {len(data.classes)} classes: {data.train} to train on, "
        f"{data.validation} to validate, {data.test} to test"
    )
    if untested := record.untested(data):
        console.print(f"not tested: {untested}", markup=False)
    if data.duplicates:
        console.print(f"{data.duplicates} left out: others that are kept show the same picture")
    for rejected in found.rejected[:10]:
        console.print(f"left out: {found.relative(rejected.path)}: {rejected.reason}", markup=False)
    if len(found.rejected) > 10:
        console.print(f"... and {len(found.rejected) - 10} more files; the report lists them all")


def _summarise(phases: Phases, manifest: Manifest, verdict: str, published: Path, settings: Settings) -> None:
    console, sides, recipe = phases.console, manifest.data, manifest.recipe
    names = ", ".join(manifest.class_names[:12]) + (", ..." if len(manifest.class_names) > 12 else "")
    rows = [
        ("classes", f"{len(manifest.class_names)}: {names}"),
        ("images", f"{sides.train} train, {sides.validation} validation, {sides.test} test"),
        ("left out", f"{sides.duplicates} duplicates, {sides.unreadable} unreadable or unlabelled files"),
        ("strategy", f"{recipe.strategy}, {recipe.backbone}, weights {recipe.weights}"),
        ("parameters", f"{recipe.trained_parameters:,} trained of {recipe.total_parameters:,}"),
        ("validation accuracy", accuracy(manifest.metrics.validation)),
        ("test accuracy", f"{accuracy(manifest.metrics.test)} on {manifest.metrics.test.engine}"),
        *_quantized(manifest),
        ("seconds", f"{sum(phases.seconds.values()):.1f} in all"),
        ("verdict", verdict),
        ("published", str(published)),
        ("report", str(published / REPORT / "index.html")),
    ]
    rows += _next(settings, manifest.version)
    console.print()
    for name, value in rows:
        console.print(f"{name:<22} {value}", markup=False)


def _quantized(manifest: Manifest) -> list[tuple[str, str]]:
    if not manifest.metrics.HasField("quantized"):
        return []
    found = manifest.metrics.quantized
    return [("in 8 bits", f"{accuracy(found)} on {found.engine}")]


def _next(settings: Settings, version: int) -> list[tuple[str, str]]:
    """How what was published goes live, or why not: as a service reads serving.json."""
    policy_file = settings.models / settings.name / POLICY
    try:
        policy = read_policy(policy_file.parent)
    except BrokenPolicy as error:
        return [("live", f"nothing new while {policy_file} cannot be understood"), ("next", f"correct it: {error}")]
    live = policy.live(list_versions(settings.models).get(settings.name, []))
    if live == version:
        return [("next", f"python -m service --models {settings.models}")]
    change = f"python -m service.models --models {settings.models}"
    undo = [f"{change} unpin {settings.name}"] if STABLE in policy.labels else []
    undo += [f"{change} latest {settings.name} 1"] if policy.specific else []
    if not undo:
        return [("live", f"version {live}, which was published meanwhile and is higher")]
    stays = f"version {live} stays so" if live else "no version"
    return [("live", f"{stays}, as {policy_file} says"), *(("next", command) for command in undo)]


def accuracy(evaluation: Evaluation) -> str:
    """Such as "0.9771 (95 %: 0.9349-0.9922, 131 images)"."""
    if not evaluation.images:
        return "no images to say"
    low, high = evaluation.accuracy_interval
    return f"{evaluation.accuracy:.4f} (95 %: {low:.4f}-{high:.4f}, {evaluation.images} images)"
