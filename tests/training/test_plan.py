"""What `auto` decides: the best head, fine-tuning only where it is clearly better, the textbook case by its rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import depths, plan


def _result(strategy: str, losses: np.ndarray, mistakes: int = 0, positions: np.ndarray | None = None) -> plan.Result:
    right = np.arange(len(losses)) >= mistakes
    return plan.Result(
        strategy, strategy, np.arange(len(losses)) if positions is None else positions, losses, right, 1.0, 1
    )


@given(st.integers(0, 1000))
def test_within_noise_no_finetuning_wins(seed: int):
    """Two candidates whose losses differ by noise alone: the head, unless chance exceeds a standard error."""
    random = np.random.default_rng(seed)
    losses = random.exponential(0.1, 200)
    noise = random.normal(0, 0.1, 200)
    noise -= noise.mean()
    lead, why = plan.choose([_result("partial", losses + noise - 1e-4), _result("linear", losses)], 0.0)
    assert lead.strategy == "linear"
    assert "partial is not better" in why


@pytest.mark.parametrize(("left", "winner"), [(0.0, "linear"), (0.05, "linear"), (0.2, "partial"), (1.0, "partial")])
def test_the_worse_the_features_the_less_must_finetuning_show(left: float, winner: str):
    """A gain of a quarter of a standard error: luck where features are good, to be taken where they are poor."""
    losses = np.random.default_rng(0).exponential(0.1, 200)
    noise = np.tile([-0.1, 0.1], 100)
    gain = 0.25 * float(noise.std(ddof=1)) / 200**0.5
    lead, why = plan.choose([_result("linear", losses), _result("partial", losses + noise - gain)], left)
    assert lead.strategy == winner
    assert ("by more than a standard error" in why) is (winner == "linear")


@given(st.permutations(["linear", "svm", "multilayer"]))
def test_the_head_with_the_lowest_log_loss_wins(order: list[str]):
    """Whichever it is, in whatever order they were tried; of equal ones the simplest."""
    losses = np.random.default_rng(0).exponential(0.1, 200)
    scale = {"linear": 1.0, "svm": 1.1, "multilayer": 0.99}
    lead, why = plan.choose([_result(name, losses * scale[name]) for name in order], 0.0)
    assert lead.strategy == "multilayer"
    assert "linear follows: log-loss lower by" in why
    assert plan.choose([_result(name, losses) for name in order], 0.0)[0].strategy == "linear"


def test_clearly_better_finetuning_wins_and_says_why():
    """When it is better on nearly every image it takes the lead; the sentence has the numbers."""
    losses = np.random.default_rng(0).exponential(0.1, 200)
    lead, why = plan.choose([_result("linear", losses, 6), _result("partial", losses * 0.5, 3)], 0.0)
    assert lead.strategy == "partial"
    assert "200 images, +3 right" in why


def test_finetuning_with_more_mistakes_does_not_win():
    """Accuracy is what counts in the end: fine-tuning that is right less often does not take the lead."""
    losses = np.random.default_rng(0).exponential(0.1, 200)
    assert plan.choose([_result("linear", losses, 3), _result("partial", losses * 0.5, 4)], 1.0)[0].strategy == "linear"


def test_candidates_meet_on_the_images_of_both():
    """Fine-tuning is judged on the validation images only, where the other has an answer too."""
    losses = np.full(200, 0.1)
    tuned = _result("partial", np.linspace(0.01, 0.02, 40), positions=np.arange(160, 200))
    lead, why = plan.choose([_result("linear", losses), tuned], 0.0)
    assert lead is tuned
    assert "same 40 images" in why


@pytest.mark.parametrize(
    ("per_class", "validation", "mistakes", "said"),
    [
        (7, 100, 50, "too few to learn from"),
        (100, 5, 50, "too few to judge by"),
        (100, 100, 0, "0.00% mistakes"),
        (100, 100, 1, "0.50% mistakes"),
        (100, 100, 3, ""),
    ],
)
def test_finetuning_must_be_worth_trying(per_class: int, validation: int, mistakes: int, said: str):
    """Images enough to learn from and to judge by, and mistakes enough that half of them would matter."""
    lead = _result("linear", np.zeros(200), mistakes)
    refusal = plan.refusal(lead, np.repeat(np.arange(2), per_class), range(validation), 0.0)
    assert said in refusal
    assert bool(refusal) is bool(said)


@pytest.mark.parametrize(
    ("validation", "left", "said"),
    [(100, 0.05, "0.9 standard errors on 100 validation images"), (1000, 0.05, ""), (100, 0.2, "")],
)
def test_finetuning_must_be_able_to_win(validation: int, left: float, said: str):
    """Few mistakes on few images: with half of them gone, the gain would not be clear of noise, if it has to be."""
    losses = np.where(np.arange(200) < 3, 3.0, 0.0)
    refusal = plan.refusal(_result("linear", losses, 3), np.repeat([0, 1], 100), range(validation), left)
    assert said in refusal
    assert bool(refusal) is bool(said)


@given(st.lists(st.integers(1, 2500), min_size=2, max_size=5))
def test_first_rung_has_every_class(counts: list[int]):
    """A quarter of each class and at least five images, or everything where a quarter would be too few."""
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = plan.first_rung(labels, 0)
    assert len(set(rows.tolist())) == len(rows)
    assert (np.bincount(labels[rows]) >= np.minimum(counts, 5)).all()
    if len(labels) >= 2000:
        assert len(labels) / 4 <= len(rows) <= len(labels) / 4 + 5 * len(counts)
    else:
        assert len(rows) == len(labels)


@pytest.mark.parametrize("per_class", [20, 1000])
@pytest.mark.parametrize(("mistakes", "best", "similar"), [(0, depths.FINAL, True), (0, "a", False), (30, "a", False)])
def test_the_four_cases(per_class: int, mistakes: int, best: str, similar: bool):
    """Large is counted; similar needs the last features to be the best and nearly enough."""
    labels = np.repeat([0, 1], per_class)
    evidence = {"a": 0.1, depths.FINAL: 0.1} | {best: 0.5}
    found = plan.case(labels, evidence, _result("linear", np.zeros(100), mistakes))
    assert (found.large, found.similar) == (per_class >= plan.LARGE, similar)
    assert str(per_class) in found.rule
