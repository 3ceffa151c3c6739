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
        side_px: S; None for the backbone's own (64 for `scratch`).
        resize: "crop" or "squash".
        epochs: at most so many; None for the strategy's own.
        batch_size: images per gradient step.
        learning_rate: of the first step; None for the strategy's own.
        seed: of the split and everything random.
        test_fraction: share of the images to test on, where DATA does not say.
        validation_fraction: the same for validation.
        cache: folder for features and unpacked archives.
        engine: what evaluates the export; one of service.settings.ENGINES.
        command: what was typed.
    """

    data: Path
    models: Path
    name: str
    strategy: str = "linear"
    backbone: str = "MobileNetV2"
    weights: str = "imagenet"
    unfreeze: int = 3
    side_px: int | None = None
    resize: str = "crop"
    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    seed: int = 0
    test_fraction: float = 0.15
    validation_fraction: float = 0.15
    cache: Path = Path("cache")
    engine: str = "auto"
    command: str = ""
