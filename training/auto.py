"""The strategy `auto`: measures what the data are like, tries what is worth trying, and keeps what wins.

1. Features at several depths, one forward pass. LogME says how well each depth suits the labels.
2. The better half of the earlier depths, the last features, and all depths together get cross-validated heads; where
   there are enough images, on a quarter of them first, and only the better half goes on to all.
3. Fine-tuning of the last blocks, in what is left of the budget, only where there are images enough to learn from and
   to judge by, and mistakes enough that it would matter.

What is decided how is training/plan.py's. The test images are never asked for.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from rich.table import Table

from training import (
    backbones,
    depths,
    evaluation,
    features,
    finetuning,
    linear,
    multilayer,
    plan,
    svm,
    transferability,
)
from training.backbones import Backbone
from training.errors import SettingError
from training.linear import LinearHead
from training.plan import Budget, Result
from training.progress import OutOfTimeError, Phases
from training.settings import Settings
from training.task import Decision, Task, Trained, Tried

Features = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Head:
    """A linear head that can be tried: on which depths, by what."""

    strategy: str
    layers: tuple[str, ...]

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"svm on {self.layers[0]}" if self.strategy == "svm" else self.strategy

    def fit(self, task: Task, computed: Features, rows: NDArray[np.intp]) -> LinearHead:
        """Fits it to some rows of train and validation."""
        fitted = np.asarray(task.split.train + task.split.validation)[rows]
        labels, groups = task.labels[fitted], [task.groups[position] for position in fitted]
        # Without a copy where these are all rows: they may be more than memory should hold.
        whole = len(rows) == len(computed[self.layers[0]])
        some = {layer: computed[layer] if whole else computed[layer][rows] for layer in self.layers}
        if self.strategy == "multilayer":
            return multilayer.fit(some, labels, groups, task.classes, task.seed)
        fit = svm.fit if self.strategy == "svm" else linear.fit
        return fit(some[self.layers[0]], labels, groups, task.classes, seed=task.seed)


@dataclass(frozen=True)
class _Run:
    task: Task
    backbone: Backbone
    settings: Settings
    phases: Phases
    clock: Callable[[], float]
    budget: Budget
    computed: Features

    @property
    def fitted(self) -> tuple[int, ...]:
        """Positions of the rows of `computed`."""
        return self.task.split.train + self.task.split.validation


def train(
    task: Task,
    backbone: Backbone,
    settings: Settings,
    phases: Phases,
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """Finds out what to train, and trains it.

    Args:
        task: what to learn; of its split only train and validation are looked at.
        backbone: stays as it is; fine-tuning works on a copy.
        settings: time_budget, unfreeze, cache and what fine-tuning reads.
        phases: shows the progress, and gets the table.
        clock: seconds; injected by tests.

    Raises:
        DataError: a file changed.
    """
    budget = Budget(settings.time_budget, clock)
    fitted = task.split.train + task.split.validation
    with phases.phase("computing features") as advance:
        computed = features.compute_depths(
            task.pick(fitted), backbone, task.spec, settings.cache, depths.choose(backbone), on_progress=advance
        )
    run = _Run(task, backbone, settings, phases, clock, budget, computed)
    with phases.phase("measuring depths"):
        labels = task.labels[list(fitted)]
        evidence = {
            layer: transferability.logme(values, labels, task.classes, seed=task.seed)
            for layer, values in computed.items()
        }
    with phases.phase("trying heads"):
        heads, dropped = _try_heads(run, _heads(evidence))
    results = [found for found, _, _ in heads]
    case = plan.case(task.labels[list(task.split.train)], evidence, results[0])
    left = plan.mistakes_left(results[0].accuracy, labels)
    tuned, note = _try_finetuning(run, plan.choose(results, left)[0], left)
    if tuned is not None:
        results.append(tuned[0])
    lead, why = plan.choose(results, left)
    if tuned is not None and lead is tuned[0]:
        trained = tuned[1]
    else:
        head, fit = next((head, fit) for found, head, fit in heads if found is lead)
        trained = linear.trained(task, backbone, fit, head.layers)
        trained = replace(trained, hyperparameters=trained.hyperparameters | {"layers": ", ".join(head.layers)})
    tried = sorted([*results, *dropped], key=lambda one: (one is not lead, -len(one.positions), one.losses.mean()))
    rows = [Tried(one.name, one.accuracy, round(one.seconds, 2), len(one.positions), one.parameters) for one in tried]
    decision = Decision(
        case.size, case.domain, case.rule, why, note, settings.time_budget, round(budget.spent_s, 1), evidence
    )
    _tell(phases, rows, decision)
    return replace(trained, tried=rows, strategy=lead.strategy, decision=decision)


def _heads(evidence: Mapping[str, float]) -> list[Head]:
    """The last features, always; the better half of the earlier depths; and all depths together."""
    earlier = sorted((layer for layer in evidence if layer != depths.FINAL), key=lambda layer: -evidence[layer])
    found = [Head("linear", (depths.FINAL,))]
    if earlier:
        found.append(Head("multilayer", tuple(evidence)))
    return found + [Head("svm", (layer,)) for layer in plan.better_half(earlier)]


def _try_heads(run: _Run, heads: Sequence[Head]) -> tuple[list[tuple[Result, Head, LinearHead]], list[Result]]:
    """Cross-validates heads as far as the budget goes; `linear` always, for something has to be published.

    Returns:
        Those fitted to all images, `linear` first, and the results of those that were left behind before.
    """
    labels = run.task.labels[list(run.fitted)]
    everything = np.arange(len(labels))
    rows = plan.first_rung(labels, run.task.seed)
    dropped: list[Result] = []
    estimated: dict[Head, float] = {}
    if len(rows) < len(everything):
        quarter = {head: found for found, head, _ in _try_in_time(run, heads, rows, {})}
        kept = plan.better_half(sorted(quarter, key=lambda head: float(quarter[head].losses.mean())))
        heads = [head for head in quarter if head in kept or head.strategy == "linear"]
        dropped = [found for head, found in quarter.items() if head not in heads]
        estimated = {head: found.seconds * len(everything) / len(rows) for head, found in quarter.items()}
    return _try_in_time(run, heads, everything, estimated), dropped


def _try_in_time(
    run: _Run, heads: Sequence[Head], rows: NDArray[np.intp], estimated: Mapping[Head, float]
) -> list[tuple[Result, Head, LinearHead]]:
    """The first of the heads, and of the others those for which there is time.

    Args:
        run: what is tried for.
        heads: `linear` first.
        rows: to fit them to.
        estimated: seconds that they may take, by what they took on fewer rows.
    """
    tried: list[tuple[Result, Head, LinearHead]] = []
    for head in heads:
        # Without an estimate: as long, per feature, as `linear` took.
        if tried:
            per_feature = tried[0][0].seconds / run.backbone.width
            needed = estimated.get(head, per_feature * sum(run.computed[layer].shape[1] for layer in head.layers))
            if run.budget.left_s < needed:
                continue
        found, fit = _try(run, head, rows)
        tried.append((found, head, fit))
        if not fit.tried:
            # One picture of each class: no folds, so nothing could be told apart.
            break
    return tried


def _try(run: _Run, head: Head, rows: NDArray[np.intp]) -> tuple[Result, LinearHead]:
    start = run.clock()
    fit = head.fit(run.task, run.computed, rows)
    positions = np.asarray(run.fitted)[rows][fit.held_out]
    found = plan.result(
        head.name,
        head.strategy,
        positions,
        fit.scores[fit.held_out],
        run.task.labels[positions],
        seconds=run.clock() - start,
        parameters=fit.kernel.size + fit.bias.size,
    )
    return found, fit


def _try_finetuning(run: _Run, lead: Result, left: float) -> tuple[tuple[Result, Trained] | None, str]:
    """Fine-tunes the last blocks if that can win, in what is left of the budget; says what happened."""
    task, settings = run.task, run.settings
    refusal = plan.refusal(lead, task.labels[list(task.split.train)], task.split.validation, left)
    if refusal:
        return None, f"not tried: {refusal}"
    if not backbones.boundaries(run.backbone.network):
        return None, f"not tried: {run.backbone.family.name} cannot be cut between its blocks"
    asked = replace(settings, strategy="partial")
    start, left_s = run.clock(), run.budget.left_s
    if left_s <= 0:
        return None, "not tried: nothing is left of the budget"
    try:
        trained = finetuning.train(
            task, _copy(run.backbone), run.computed[depths.FINAL], asked, run.phases.within(left_s)
        )
    except OutOfTimeError as error:
        return None, f"given up: {error}"
    except SettingError as error:
        return None, f"not possible: {error}"
    except (MemoryError, tf.errors.ResourceExhaustedError):
        return None, "not possible: out of memory; a smaller --batch-size may help"
    found = plan.result(
        f"partial, {trained.hyperparameters['unfreeze']} blocks, {len(trained.epochs) - 1} epochs",
        "partial",
        np.asarray(trained.held_out),
        trained.scores,
        trained.held_out_labels(task),
        seconds=run.clock() - start,
        parameters=trained.trained_parameters,
    )
    return (found, trained), f"tried, with {left_s:.0f} s for it"


def _copy(backbone: Backbone) -> Backbone:
    """The same network and weights, to be changed."""
    copy = backbones.load(backbone.family, "none", backbone.side_px)
    copy.network.set_weights(backbone.network.get_weights())
    return replace(copy, weights=backbone.weights, sha256=backbone.sha256)


def _tell(phases: Phases, rows: Sequence[Tried], decision: Decision) -> None:
    table = Table("candidate", "accuracy", "95 %", "images", "seconds", "parameters", box=None, pad_edge=False)
    for row in rows:
        low, high = evaluation.wilson(round(row.validation_accuracy * row.images), row.images)
        table.add_row(
            row.candidate,
            f"{row.validation_accuracy:.4f}",
            f"{low:.4f}-{high:.4f}",
            str(row.images),
            f"{row.seconds:.1f}",
            f"{row.parameters:,}",
        )
    phases.console.print(table)
    said = (
        ("budget", f"{decision.budget_s:g} s, used {decision.spent_s:g} s"),
        ("case", f"{decision.size} data, {decision.domain} domain: {decision.rule}"),
        ("why", decision.reason),
        ("fine-tuning", decision.fine_tuning),
        ("LogME", ", ".join(f"{layer} {value:.3f}" for layer, value in decision.logme.items())),
    )
    for name, value in said:
        phases.console.print(f"{name:<22} {value}", markup=False)
