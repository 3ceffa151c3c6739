"""What a training run was asked to do; read from the command line once, in training/__main__.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

STRATEGIES: Final = ("linear", "partial", "full", "scratch")


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
        unfreeze: blocks that `partial` trains, counted from the end.
        freeze: blocks that `partial` does not train, counted from the start; used in place of unfreeze.
        flip: whether pictures may be mirrored in training.
        side_px: S; None for the backbone's own (64 for `scratch`).
        resize: "squash" or "crop".
        epochs: at most so many; None for the strategy's own.
        batch_size: images per gradient step.
        learning_rate: of the first step; None for the strategy's own.
        seed: of the split and everything random.
        test_fraction: share of the images to test on, where DATA does not say.
        validation_fraction: the same for validation.
        cache: folder for features and unpacked archives.
        engine: what evaluates the export; one of service.settings.ENGINES.
        command: what was typed.
        champion: refuse a version that is significantly worse than the published one.
        publish_anyway: do not refuse it, but say so.
        fresh: do not go on from what an interrupted run has left.
        run_folder: where gradient training keeps its checkpoints; None for nowhere. Set by training/train.py.
    """

    data: Path
    models: Path
    name: str
    strategy: str = "linear"
    backbone: str = "MobileNetV2"
    weights: str = "imagenet"
    unfreeze: int = 3
    freeze: int | None = None
    flip: bool = False
    side_px: int | None = None
    resize: str = "squash"
    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    seed: int = 0
    test_fraction: float = 0.15
    validation_fraction: float = 0.15
    cache: Path = Path("cache")
    engine: str = "auto"
    command: str = ""
    champion: bool = False
    publish_anyway: bool = False
    fresh: bool = False
    run_folder: Path | None = None
