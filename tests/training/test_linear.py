"""The linear head folds what it should, chooses by held-out evidence, and its scores are calibrated."""

import numpy as np
import pytest

from training import calibration, linear, svm


def _blobs(classes: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centres = random.normal(0, 1, (classes, 12))
    labels = np.repeat(np.arange(classes), each)
    features = centres[labels] + random.normal(0, spread, (len(labels), 12))
    return (features * random.uniform(0.01, 100, 12) + 5).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 4])
def test_head_works_on_raw_features(classes: int):
    """Standardisation is folded in: features on scales 10,000 apart are separated as they come."""
    features, labels = _blobs(classes, 60, 0.4)
    head = linear.fit(features, labels, range(len(labels)), classes)
    assert np.mean(head.logits(features).argmax(axis=1) == labels) > 0.95
    assert np.mean(head.scores.argmax(axis=1) == labels) > 0.9
    np.testing.assert_allclose(head.scores.sum(axis=1), 1, atol=1e-5)


def test_tiny_features():
    """Features of 1e-18, as untrained networks give them, are separated as well as any; constant ones do no harm."""
    features, labels = _blobs(3, 40, 0.4)
    features[:, 0] = 7
    usual, tiny = (linear.fit(values, labels, range(len(labels)), 3) for values in (features, features * 1e-18))
    np.testing.assert_allclose(tiny.logits(features * 1e-18), usual.logits(features), rtol=0.02, atol=0.02)


def test_two_classes_give_the_probability_of_the_one_logit():
    """Two logits of half and minus half are scikit-learn's own probability (before the temperature)."""
    features, labels = _blobs(2, 60, 1.0)
    head = linear.fit(features, labels, range(len(labels)), 2)
    logits = head.logits(features) * head.temperature
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    model = linear.LogisticRegression(C=head.strength, max_iter=1000).fit(standardised, labels)
    np.testing.assert_allclose(calibration.softmax(logits), model.predict_proba(standardised), atol=2e-3)


def test_copies_do_not_flatter():
    """Groups stay in one fold: without labels that mean anything, copies do not lift the held-out accuracy."""
    random = np.random.default_rng(0)
    originals = random.normal(0, 1, (60, 40)).astype(np.float32)
    labels = np.tile(np.arange(2), 30)
    features, doubled = np.vstack([originals, originals]), np.tile(labels, 2)
    grouped = linear.fit(features, doubled, np.tile(np.arange(60), 2), 2)
    careless = linear.fit(features, doubled, np.arange(120), 2)
    assert np.mean(grouped.scores.argmax(axis=1) == doubled) < 0.65
    assert np.mean(careless.scores.argmax(axis=1) == doubled) > 0.8


def test_strength_has_the_smallest_held_out_loss():
    """The strength that was chosen is the best of those tried."""
    features, labels = _blobs(3, 40, 1.5)
    head = linear.fit(features, labels, range(len(labels)), 3)
    assert len(head.tried) == len(linear.STRENGTHS)
    assert head.strength == min(head.tried, key=lambda one: one.log_loss).value


@pytest.mark.parametrize("fewest", [1, 2, 3])
def test_tiny_classes(fewest: int):
    """A class is in every fit, however few its images; a single one is held out of none, and judges nothing."""
    features, labels = _blobs(3, 30, 0.3)
    keep = np.concatenate([np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:fewest]])
    head = linear.fit(features[keep], labels[keep], range(len(keep)), 3)
    assert head.kernel.shape == (12, 3)
    assert np.isfinite(head.kernel).all()
    assert len(head.tried) == len(linear.STRENGTHS)
    assert head.unknown_threshold > 0
    np.testing.assert_array_equal(head.held_out, (labels[keep] != 2) | (fewest > 1))


def test_one_image_of_each_class():
    """There is no fold: the default strength, no threshold."""
    features, labels = _blobs(3, 1, 0.3)
    head = linear.fit(features, labels, range(3), 3)
    assert head.tried == ()
    assert head.unknown_threshold == 0
    assert head.held_out.all()


def test_a_rare_class_changes_nothing_for_the_others():
    """With one image of a third class in every fold's fit, what is held out has nearly the scores that it had."""
    features, labels = _blobs(2, 60, 1.0)
    without = linear.fit(features, labels, range(120), 2)
    far = np.full((1, features.shape[1]), 20, np.float32)
    beside = linear.fit(np.vstack([features, far]), np.append(labels, 2), range(121), 3)
    held_out = beside.scores[beside.held_out]
    assert len(held_out) == 120
    accuracies = [np.mean(scores.argmax(axis=1) == labels) for scores in (without.scores, held_out)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.03)


def test_same_seed_same_head():
    """The same seed gives the same numbers, bit for bit."""
    features, labels = _blobs(3, 30, 1.0)
    first, second = (linear.fit(features, labels, range(90), 3, seed=5) for _ in range(2))
    assert first.kernel.tobytes() == second.kernel.tobytes()


@pytest.mark.parametrize("true", [0.25, 1.0, 4.0])
def test_temperature_is_found_again(true: float):
    """Logits of a calibrated model, multiplied by a number, get this number as their temperature."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (4000, 3))
    drawn = random.uniform(size=(4000, 1))
    labels = (drawn > calibration.softmax(logits).cumsum(axis=1)[:, :2]).sum(axis=1)
    assert calibration.temperature(logits * true, labels) == pytest.approx(true, rel=0.1)


def test_unknown_threshold_is_what_99_percent_of_right_answers_reach():
    """About one right answer in a hundred is below the threshold; too few answers give none."""
    random = np.random.default_rng(0)
    best = random.uniform(0.5, 1, 1000)
    scores = np.stack([best, 1 - best], axis=1).astype(np.float32)
    labels = np.zeros(1000, np.intp)
    threshold = calibration.unknown_threshold(scores, labels)
    assert 0.005 < np.mean(best < threshold) < 0.01
    few = scores[:30]
    assert (few.max(axis=1) >= calibration.unknown_threshold(few, labels[:30])).all()
    assert calibration.unknown_threshold(scores[:5], labels[:5]) == 0


def test_fewer_images_than_features_changes_nothing():
    """Fitting among as many numbers as there are images finds what scikit-learn finds among all features."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (random.normal(size=(3, 200))[labels] * 0.3 + random.normal(size=(60, 200))).astype(np.float32)
    head = svm.fit(features, labels, list(range(60)), 3)
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    margins = svm.MACHINE.make(head.strength).fit(standardised, labels).decision_function(standardised)
    np.testing.assert_allclose(head.logits(features) * head.temperature, margins, atol=1e-2)


@pytest.mark.parametrize("count", [50, 1000])
def test_a_faultless_model_is_not_sure(count: int):
    """When every answer is right, the mean score says how many images showed it, not 1."""
    labels = np.arange(count) % 4
    logits = (5 * np.eye(4)[labels] + np.random.default_rng(0).uniform(0, 0.5, (count, 4))).astype(np.float32)
    assert (logits.argmax(axis=1) == labels).all()
    scores = calibration.softmax(logits / calibration.temperature(logits, labels))
    assert 0.5 / count < 1 - scores.max(axis=1).mean() < 2 / count
