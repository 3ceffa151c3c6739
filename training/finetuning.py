"""The strategies `partial` and `full`: the head first, on the frozen backbone; then the last blocks, or all of it.

BatchNorm stays as it came: its statistics are those of the weights' own training, and a few hundred images would only
spoil them. `partial` computes what goes into its first trained block once per image, keeps it on disk for the run, and
so pays in each epoch for the trained blocks alone.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training import backbones, gradient, graph, learning_rates, linear, pixels
from training.augmentation import Augmentation
from training.backbones import Backbone
from training.checkpoint import Checkpoint
from training.errors import DataError, SettingError
from training.features import BATCH
from training.gradient import Batches, Load
from training.progress import Phases
from training.settings import Settings
from training.task import Task, Trained

_EPOCHS: Final = {"partial": 20, "full": 10}
_LEARNING_RATE: Final = {"partial": 1e-4, "full": 2e-5}
_PATIENCE: Final = 3
_USUAL_MAX: Final = 1024.0
_FLOAT16_MAX: Final = float(np.finfo(np.float16).max)
_SPARE_BYTES: Final = 256 << 20


def train(task: Task, backbone: Backbone, features: NDArray[np.float32], settings: Settings, phases: Phases) -> Trained:
    """Fits a linear head to the train split, then trains it together with the last blocks or the whole backbone.

    Args:
        task: what to learn.
        backbone: changed in place.
        features: of all images of train and validation, in the order of `task.split.train + task.split.validation`.
        settings: strategy, unfreeze, epochs, batch size, learning rate, cache.
        phases: shows the progress.

    Raises:
        DataError: no validation images to stop by.
        SettingError: more blocks to freeze or unfreeze than there are, or no disk for the activations.
    """
    if not task.split.validation:
        raise DataError(f"--strategy {settings.strategy} stops by validation images; there are none")
    with phases.phase("fitting the head"):
        head = _linear_head(task, features)
    _hold_batch_norm(backbone.network)
    used = task.split.train + task.split.validation
    labels = task.labels[list(used)]
    epochs = settings.epochs or _EPOCHS[settings.strategy]
    learning_rate = settings.learning_rate or _LEARNING_RATE[settings.strategy]
    hyperparameters = {
        "epochs": str(epochs),
        "batch_size": str(settings.batch_size),
        "learning_rate": f"{learning_rate:g}",
        "patience": str(_PATIENCE),
    }
    augmentation, shares = None, dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="run-", dir=settings.run_folder or settings.cache) as folder:
        if settings.strategy == "partial":
            cut = _cut(backbone, settings)
            hyperparameters |= {"unfreeze": str(_unfrozen(backbone, cut)), "frozen_up_to": cut.name}
            load = _activations(task, backbone, cut, Path(folder), phases)
            model = _top(backbone, cut, head)
        else:
            augmentation, shares = Augmentation(settings.flip), learning_rates.shares(backbone.network)
            hyperparameters |= {
                "augmentation": str(augmentation),
                "schedule": "warm-up, cosine",
                "rate_per_block": f"{learning_rates.DECAY:g}",
            }
            load = _pixel_loader(task, used)
            model = _whole(backbone, head)
        in_train = np.arange(len(task.split.train))
        in_validation = np.arange(len(task.split.train), len(used))
        weights = gradient.class_weights(labels[in_train], task.classes)
        hyperparameters |= gradient.describe_weights(weights)
        validation = Batches(load, in_validation, labels, task.classes, settings.batch_size)
        training = Batches(
            load,
            in_train,
            labels,
            task.classes,
            settings.batch_size,
            seed=task.seed,
            augmentation=augmentation,
            class_weights=weights,
        )
        rate = learning_rate if shares == {} else learning_rates.warm_cosine(learning_rate, epochs * len(training))
        curve = gradient.fit(
            model,
            training,
            validation,
            phases,
            epochs=epochs,
            optimizer=lambda model: learning_rates.optimizer(model, rate, shares),
            patience=_PATIENCE,
            checkpoint=Checkpoint(task, settings, phases.console, {"weights of the backbone": backbone.sha256}),
        )
        temperature, threshold, scores = gradient.held_out_scores(model, validation, labels[in_validation])
    head.set_weights([weight / temperature for weight in head.get_weights()])
    whole = _whole(backbone, head)
    return Trained(
        model=keras.Model(whole.input, keras.layers.Softmax(name="scores")(whole.output)),
        held_out=task.split.validation,
        scores=scores,
        temperature=temperature,
        unknown_threshold=threshold,
        trained_parameters=sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        hyperparameters=hyperparameters,
        epochs=curve,
    )


def _linear_head(task: Task, features: NDArray[np.float32]) -> Any:  # noqa: ANN401 - keras is untyped
    """A Dense layer that returns the logits of `linear`, fitted to the train split alone."""
    count = len(task.split.train)
    groups = [task.groups[position] for position in task.split.train]
    fitted = linear.fit(features[:count], task.labels[list(task.split.train)], groups, task.classes, seed=task.seed)
    head = keras.layers.Dense(task.classes, name="head")
    head.build((None, features.shape[1]))
    head.set_weights([fitted.kernel, fitted.bias])
    return head


def _hold_batch_norm(network: Any) -> None:  # noqa: ANN401 - keras is untyped
    """Keeps BatchNorm in inference mode, statistics and all.

    By `trainable`, because calling the network with training=False is not enough: `fit` of the model around it
    overrides that (Keras 3.15; keras-team/keras#20285), and the statistics drift.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _cut(backbone: Backbone, settings: Settings) -> Any:  # noqa: ANN401 - keras is untyped
    boundaries = backbones.boundaries(backbone.network)
    if not boundaries:
        raise SettingError(f"{backbone.family.name} cannot be cut between its blocks; --strategy full trains all of it")
    flag, blocks, otherwise = "--unfreeze", settings.unfreeze, "--strategy full trains all of it"
    if settings.freeze is not None:
        flag, blocks, otherwise = "--freeze", settings.freeze, "--strategy linear freezes all of it"
    if blocks > len(boundaries):
        raise SettingError(
            f"expected {flag} of 1 to {len(boundaries)} for {backbone.family.name}, got {blocks}; {otherwise}"
        )
    return boundaries[-blocks] if settings.freeze is None else boundaries[blocks - 1]


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


def _pixel_loader(task: Task, used: tuple[int, ...]) -> Load:
    images = task.pick(used)
    return lambda positions: np.stack([pixels.pixels(images[position], task.spec) for position in positions])


def _activations(
    task: Task,
    backbone: Backbone,
    cut: Any,  # noqa: ANN401 - keras is untyped
    folder: Path,
    phases: Phases,
) -> Load:
    """Computes what the frozen part says of each image, once, as float16 on disk."""
    used = task.split.train + task.split.validation
    shape = (len(used), *cut.output.shape[1:])
    needed = 2 * int(np.prod(shape))
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise SettingError(
            f"expected {needed >> 20} MiB of free disk in {folder.parent} for the activations, found {free >> 20} MiB; "
            "a smaller --unfreeze needs less, another --cache may have more"
        )
    images = keras.Input((task.spec.side_px,) * 2 + (3,), dtype="uint8", name="images")
    bottom = keras.Model(backbone.network.input, cut.output)
    function = graph.frozen(keras.Model(images, bottom(backbone.prepare(images), training=False)))
    file = folder / "activations.f16"
    done = 0
    scale = 1.0
    with phases.phase("computing activations") as advance:
        rows = np.memmap(file, np.float16, "w+", shape=shape)
        for batch in pixels.batches(task.pick(used), task.spec, BATCH):
            computed = graph.run(function, batch)
            if not done:
                # Untrained networks have activations of 1e-18, others of 1e5; float16 holds 1e-7 to 6e4.
                scale = float(np.abs(computed).max()) / _USUAL_MAX or 1.0
            rows[done : done + len(batch)] = np.clip(computed / scale, -_FLOAT16_MAX, _FLOAT16_MAX)
            done += len(batch)
            advance(done, len(used))
        rows.flush()
    return gradient.memmap_loader(file, shape, scale)
