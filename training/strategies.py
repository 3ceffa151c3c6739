"""From the settings to a trained model: which strategy, on which backbone, at which side."""

from dataclasses import dataclass

import keras
import tensorflow as tf

from training import auto, backbones, depths, features, finetuning, gradient, linear, multilayer, scratch, svm
from training.backbones import Backbone
from training.progress import Phases
from training.settings import Settings
from training.task import Task, Trained

_OF_DEPTHS = {"svm": svm.train, "multilayer": multilayer.train}
_BY_GRADIENT = {"partial", "full", "scratch"}


@dataclass(frozen=True)
class Strategy:
    """A strategy with its backbone loaded (None for `scratch`), ready for a task."""

    settings: Settings
    backbone: Backbone | None
    side_px: int

    @property
    def backbone_name(self) -> str:
        """As Keras spells it."""
        return "basic CNN" if self.backbone is None else self.backbone.family.title

    @property
    def weights_name(self) -> str:
        """Of the backbone: "imagenet", "none" or a file's name."""
        return "none" if self.backbone is None else self.backbone.weights

    def train(self, task: Task, phases: Phases) -> Trained:
        """Trains.

        Raises:
            DataError: a file changed, or there is nothing to validate on.
            SettingError: a setting does not fit this backbone.
        """
        if self.settings.strategy in _BY_GRADIENT:
            gradient.require_validation(task, self.settings)
        if self.backbone is None:
            return scratch.train(task, self.settings, phases)
        if self.settings.strategy == "auto":
            return auto.train(task, self.backbone, self.settings, phases)
        fitted = task.pick(task.split.train + task.split.validation)
        if self.settings.strategy in _OF_DEPTHS:
            layers = depths.choose(self.backbone)
            with phases.phase("computing features") as advance:
                by_depth = features.compute_depths(
                    fitted, self.backbone, task.spec, self.settings.cache, layers, on_progress=advance
                )
            with phases.phase("fitting the head"):
                return _OF_DEPTHS[self.settings.strategy](task, self.backbone, by_depth)
        with phases.phase("computing features") as advance:
            computed = features.compute(fitted, self.backbone, task.spec, self.settings.cache, on_progress=advance)
        if self.settings.strategy == "linear":
            with phases.phase("fitting the head") as advance:
                return linear.train(task, self.backbone, computed, advance)
        return finetuning.train(task, self.backbone, computed, self.settings, phases)


def prepare(settings: Settings) -> Strategy:
    """Loads the backbone.

    Raises:
        SettingError: no such backbone, its weights cannot be had, or it cannot be cut as asked.
    """
    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    if settings.strategy == "scratch":
        return Strategy(settings, None, settings.side_px or scratch.SIDE_PX)
    backbone = backbones.load(backbones.find(settings.backbone), settings.weights, settings.side_px)
    if settings.strategy == "partial":
        finetuning.require_cut(backbone, settings)
    return Strategy(settings, backbone, backbone.side_px)
