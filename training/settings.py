"""What a training run was asked to do; read from the command line once, in training/__main__.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

STRATEGIES: Final = ("auto", "linear", "svm", "multilayer", "partial", "full", "scratch")
PRECISIONS: Final = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
        data: folder, .csv or .zip.
        models: the models directory.
        name: of the model.
        strategy: one of STRATEGIES.
        backbone: a name of keras.applications; unused by `scratch`.
        weights: "imagenet", "none" or a file.
        unfreeze: blocks that `partial` trains, counted from the end; None for half of them, or a quarter
            where there is no time for half.
        freeze: blocks that `partial` does not train, counted from the start; used in place of unfreeze.
        flip: whether pictures may be mirrored in training.
        side_px: S; None for the backbone's own (64 for `scratch`).
        resize: "crop" or "squash".
        epochs: at most so many; None for the strategy's own.
        batch_size: images per gradient step.
        learning_rate: of the first step; None for the strategy's own.
        precision: in which gradients are computed; one of PRECISIONS.
        seed: of the split and everything random.
        test_fraction: share of the images to test on, where DATA does not say.
        validation_fraction: the same for validation.
        cache: folder for features and unpacked archives.
        group_regex: images whose relative paths capture the same stay on one side of the split; None for no such.
        engine: what evaluates the export; one of service.settings.LOCAL_ENGINES.
        command: what was typed.
        time_budget: seconds that `auto` may spend on deciding and training.
        champion: refuse a version that is significantly worse than the live one.
        publish_anyway: do not refuse it, but say so.
        quantize: add the network in 8 bits.
        fresh: do not go on from what an interrupted run has left.
        tensorboard: folder for TensorBoard's logs of gradient training; None for no such.
        run_folder: where gradient training keeps its checkpoints; None for nowhere. Set by training/train.py.
    """

    data: Path
    models: Path
    name: str
    strategy: str = "auto"
    backbone: str = "MobileNetV2"
    weights: str = "imagenet"
    unfreeze: int | None = None
    freeze: int | None = None
    flip: bool = False
    side_px: int | None = None
    resize: str = "crop"
    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    precision: str = "auto"
    seed: int = 0
    test_fraction: float = 0.15
    validation_fraction: float = 0.15
    cache: Path = Path("cache")
    group_regex: str | None = None
    engine: str = "auto"
    command: str = ""
    time_budget: float = 300.0
    champion: bool = False
    publish_anyway: bool = False
    quantize: bool = False
    fresh: bool = False
    tensorboard: Path | None = None
    run_folder: Path | None = None


@dataclass(frozen=True)
class AuditSettings:
    """One audit.

    Attributes:
        data: folder, .csv or .zip.
        cache: folder for features and unpacked archives.
        label_check: whether to look for label errors, which takes a backbone.
        backbone: for that, a name of keras.applications.
        weights: "imagenet", "none" or a file.
        seed: of the folds.
        group_regex: as in Settings.
        json: file to write the findings to, or None.
        html: file to write a page with thumbnails to, or None.
        command: what was typed.
    """

    data: Path
    cache: Path
    label_check: bool = True
    backbone: str = "MobileNetV2"
    weights: str = "imagenet"
    seed: int = 0
    group_regex: str | None = None
    json: Path | None = None
    html: Path | None = None
    command: str = ""
