"""The new version against the live one, on the same test images: is it significantly worse?

Both answer through the service's own classifier, and only images on which one is right and the other wrong tell them
apart (McNemar 1947, exact). What follows from the answer is training/train.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from scipy.stats import binomtest

from protos.manifest_pb2 import ChampionComparison
from service.errors import GraftError
from service.policy import live_version
from service.version import read_version
from training import evaluation
from training.evaluation import Prediction

SIGNIFICANT: Final = 0.05
_FEWEST_CLASSES: Final = 2


def compare(
    models: Path,
    name: str,
    predictions: Sequence[Prediction],
    *,
    class_names: Sequence[str],
    test_sha256: str,
    engine: str,
    on_progress: Callable[[int, int], None],
) -> ChampionComparison | None:
    """Asks the version of this name that answers by default about the images that the new one has just answered.

    Classes that only one of the two knows are left out, with their images: on them there is nothing to compare. A
    live version that does not load, or shares fewer than two classes, is incomparable and stops nothing.

    Args:
        models: the models directory.
        name: the model's name.
        predictions: the new version's, of the test images.
        class_names: the new version's.
        test_sha256: fingerprint of the new version's test images.
        engine: one of service.settings.LOCAL_ENGINES.
        on_progress: called with (images done, images in all).

    Returns:
        None where nothing is published.
    """
    number = live_version(models, name)
    if not number:
        return None
    try:
        manifest = read_version(models / name / str(number)).manifest
        shared = set(class_names) & set(manifest.class_names)
        asked = [one for one in predictions if one.image.label in shared]
        if len(shared) < _FEWEST_CLASSES:
            return _incomparable(number, f"it shares {len(shared)} of our {len(class_names)} classes")
        if not asked:
            return _incomparable(number, "there are no test images of classes that both know")
        images = [one.image for one in asked]
        answered, _ = evaluation.predict(models / name / str(number), engine, images, on_progress)
    except GraftError as error:
        return _incomparable(number, f"it does not answer: {error}")
    notes = []
    if len(shared) < max(len(class_names), len(manifest.class_names)):
        notes.append(f"on the {len(shared)} classes that both know")
    if manifest.data.test_sha256 != test_sha256:
        notes.append(
            f"version {number} was tested on other images and may have been trained on some of these, which flatters it"
        )
    only_new, only_champion = discordant(asked, answered)
    chance = p_value(only_champion, only_new)
    return ChampionComparison(
        version=number,
        images=len(asked),
        right_new=sum(one.right for one in asked),
        right_champion=sum(one.right for one in answered),
        only_new=only_new,
        only_champion=only_champion,
        p_value=chance,
        worse=chance < SIGNIFICANT,
        note="; ".join(notes),
    )


def describe(found: ChampionComparison) -> str:
    """One sentence with the numbers, about "the new version"."""
    if found.incomparable:
        return f"version {found.version} could not be compared with: {found.incomparable}"
    verdict = "significantly worse" if found.worse else "not significantly worse"
    return (
        f"{verdict} than version {found.version}: {found.right_new} of {found.images} test images right against "
        f"{found.right_champion}; {found.only_champion} only by version {found.version}, {found.only_new} only by the "
        f"new one (one-sided exact McNemar test, p = {found.p_value:.3g}){found.note and '; ' + found.note}"
    )


def discordant(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> tuple[int, int]:
    """How many images are answered rightly only by the first, and only by the second."""
    pairs = [(one.right, other.right) for one, other in zip(ours, theirs, strict=True)]
    return pairs.count((True, False)), pairs.count((False, True))


def p_value(lost: int, won: int) -> float:
    """One-sided exact McNemar test: the chance to lose `lost` or more of `lost + won` by tossing a coin."""
    return float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue) if lost + won else 1.0


def _incomparable(version: int, why: str) -> ChampionComparison:
    return ChampionComparison(version=version, p_value=1.0, incomparable=why)
