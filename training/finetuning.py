"""The strategies `partial` and `full`: the head first, on the frozen backbone; then the last blocks, or all of it.

BatchNorm stays as it came: its statistics are those of the weights' own training, and a few hundred images would only
spoil them. `partial` computes what goes into its first trained block once per image and changed copy of it, keeps that
on disk for the run, and so pays in each epoch for the trained blocks alone.
"""

import math
from dataclasses import replace
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training import activations, backbones, gradient, learning_rates, linear, pixels, plan
from training.augmentation import Augmentation
from training.backbones import Backbone
from training.errors import SettingError
from training.gradient import Recipe
from training.progress import Phases
from training.settings import Settings
from training.task import Task, Trained

_EPOCHS: Final = 12
_FEWEST_STEPS: Final = 200
_MOST_EPOCHS: Final = 100
_LEARNING_RATES: Final = {"partial": (1e-4, 1e-3), "full": (3e-5, 3e-4)}
_WORTH: Final = 10.0
"""The highest rate is for features on which a head makes a tenth of the mistakes of guessing, or more."""
_SMOOTHING: Final = 0.1


def train(task: Task, backbone: Backbone, features: NDArray[np.float32], settings: Settings, phases: Phases) -> Trained:
    """Fits a linear head to the train split, then trains it together with the last blocks or the whole backbone.

    Args:
        task: what to learn.
        backbone: changed in place.
        features: of all images of train and validation, in the order of `task.split.train + task.split.validation`.
        settings: strategy, unfreeze, epochs, batch size, learning rate, cache.
        phases: shows the progress.

    Raises:
        SettingError: more blocks to freeze or unfreeze than there are, or no disk for the activations.
    """
    with phases.phase("fitting the head"):
        head, left = _linear_head(task, features)
    _hold_batch_norm(backbone.network)
    whole = _whole(backbone, head)
    recipe = _recipe(task, backbone, settings, left)
    if settings.strategy == "full":
        decoded = pixels.loader(task.pick(task.split.train + task.split.validation), task.spec)
        return gradient.train(task, settings, phases, recipe, model=whole, whole=whole, head=head, load=decoded)
    cut = _cut(backbone, head, settings, phases.left_s)
    boundary = {"unfreeze": str(_unfrozen(backbone, cut)), "frozen_up_to": cut.name}
    with activations.computed(task, backbone, cut, settings, phases) as computed:
        copies = {"changed_copies": str(len(computed.versions) - 1), "changes": str(Augmentation(settings.flip))}
        return gradient.train(
            task,
            settings,
            phases,
            replace(recipe, described=recipe.described | boundary | copies),
            model=_top(backbone, cut, head),
            whole=whole,
            head=head,
            load=computed.load,
            versions=computed.versions,
        )


def require_cut(backbone: Backbone, settings: Settings) -> None:
    """Raises SettingError where the backbone has no boundary that `partial` was asked to cut at."""
    boundaries = len(backbones.boundaries(backbone.network))
    if not boundaries:
        raise SettingError(f"{backbone.family.name} cannot be cut between its blocks; --strategy full trains all of it")
    for flag, blocks, otherwise in (
        ("--freeze", settings.freeze, "--strategy linear freezes all of it"),
        ("--unfreeze", settings.unfreeze, "--strategy full trains all of it"),
    ):
        if blocks is not None and blocks > boundaries:
            raise SettingError(
                f"expected {flag} of 1 to {boundaries} for {backbone.family.name}, got {blocks}; {otherwise}"
            )


def _recipe(task: Task, backbone: Backbone, settings: Settings, mistakes_left: float) -> Recipe:
    """A rate that is warmed up to and annealed, the higher the less the frozen features are worth.

    Args:
        task: what to learn.
        backbone: what is trained.
        settings: how.
        mistakes_left: by the head alone, see plan.
    """
    least, most = _LEARNING_RATES[settings.strategy]
    learning_rate = settings.learning_rate or min(most, max(least, _WORTH * most * mistakes_left))
    full = settings.strategy == "full"
    shares = learning_rates.shares(backbone.network) if full else {}
    steps = -(-len(task.split.train) // settings.batch_size)
    return Recipe(
        epochs=settings.epochs or max(_EPOCHS, min(_MOST_EPOCHS, -(-_FEWEST_STEPS // steps))),
        learning_rate=learning_rate,
        schedule=learning_rates.warm_cosine(learning_rate),
        optimizer=lambda model: learning_rates.optimizer(model, shares),
        augmentation=Augmentation(settings.flip) if full else None,
        smoothing=_SMOOTHING,
        margin=plan.doubt(mistakes_left),
        described={"schedule": "warm-up, cosine"} | ({"rate_per_block": f"{learning_rates.DECAY:g}"} if full else {}),
        starts_from={"weights of the backbone": backbone.sha256},
    )


def _linear_head(task: Task, features: NDArray[np.float32]) -> tuple[Any, float]:
    """A Dense layer that returns the logits of `linear`, fitted to the train split alone, and its `mistakes_left`."""
    count = len(task.split.train)
    groups, labels = [task.groups[position] for position in task.split.train], task.labels[list(task.split.train)]
    fitted = linear.fit(features[:count], labels, groups, task.classes, seed=task.seed)
    head = keras.layers.Dense(task.classes, name="head")
    head.build((None, features.shape[1]))
    head.set_weights([fitted.kernel, fitted.bias])
    right = fitted.scores.argmax(axis=1) == labels
    return head, plan.mistakes_left(float(np.mean(right[fitted.held_out])), labels)


def _hold_batch_norm(network: Any) -> None:  # noqa: ANN401 - keras is untyped
    """Keeps BatchNorm in inference mode, statistics and all.

    By `trainable`, because calling the network with training=False is not enough: `fit` of the model around it
    overrides that (Keras 3.15; keras-team/keras#20285), and the statistics drift.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _cut(backbone: Backbone, head: Any, settings: Settings, left_s: float) -> Any:  # noqa: ANN401 - keras is untyped
    """Where the frozen part ends: as asked; else before half of the blocks, or a quarter where time is too short.

    Half of them need no more than the fewest steps to be worth as much as a quarter with twice as many.

    Args:
        backbone: to be cut.
        head: its new one.
        settings: unfreeze, freeze and batch size.
        left_s: for training.
    """
    require_cut(backbone, settings)
    boundaries = backbones.boundaries(backbone.network)
    if settings.freeze is not None:
        return boundaries[settings.freeze - 1]
    if settings.unfreeze is not None:
        return boundaries[-settings.unfreeze]
    half, quarter = (boundaries[-max(1, len(boundaries) // part)] for part in (2, 4))
    if math.isinf(left_s):
        return half
    needed_s = _FEWEST_STEPS * gradient.step_s(_top(backbone, half, head), settings.batch_size)
    return half if needed_s < left_s else quarter


def _unfrozen(backbone: Backbone, cut: Any) -> int:  # noqa: ANN401 - keras is untyped
    """How many blocks come after a cut."""
    boundaries = backbones.boundaries(backbone.network)
    return len(boundaries) - [id(one) for one in boundaries].index(id(cut))


def _top(backbone: Backbone, cut: Any, head: Any) -> Any:  # noqa: ANN401 - keras is untyped
    """keras.Model: activations at the cut -> logits; shares its layers with the backbone."""
    inputs = keras.Input(cut.output.shape[1:], name="activations")
    blocks = keras.Model(cut.output, backbone.network.output)
    return keras.Model(inputs, head(blocks(inputs)))


def _whole(backbone: Backbone, head: Any) -> Any:  # noqa: ANN401 - keras is untyped
    """keras.Model: images uint8 [N,S,S,3] -> logits."""
    features = backbone.features()
    return keras.Model(features.input, head(features.output))
