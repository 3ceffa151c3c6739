"""What a version is worth, in words for who has never read a report: how good, how sure, and what to do next."""

from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from protos.manifest_pb2 import ClassMetrics, Manifest
from training import record

_NARROW: Final = 0.05
_WIDE: Final = 0.15


@dataclass(frozen=True)
class Verdict:
    """How good and how sure follow a share (empty where nothing was tested); `after` says what to do next."""

    share: str
    good: str
    sure: str
    after: str

    @property
    def sentence(self) -> str:
        """All of it in one."""
        return f"{' '.join(part for part in (self.share, self.good) if part)}; {self.sure}. Next: {self.after}"


def verdict(manifest: Manifest, confusion: NDArray[Any]) -> Verdict:
    """Judges a version by its manifest.

    Args:
        manifest: with the test metrics.
        confusion: of the test images, counts [C,C], row is the label.
    """
    test = manifest.metrics.test
    if not test.images:
        return Verdict("", "how good it is was not tested", "there were no test images", _next(manifest, confusion))
    low, high = test.accuracy_interval
    right = int(confusion.trace())
    photos = "image" if test.images == 1 else "images"
    how = "measured closely" if high - low <= _NARROW else "a fair estimate" if high - low <= _WIDE else "a rough guess"
    return Verdict(
        f"{test.accuracy:.1%}",
        f"of {test.images} {photos} that it had never seen were answered rightly ({test.images - right} wrong)",
        f"{how}: on others like them it should be between {low:.1%} and {high:.1%}",
        _next(manifest, confusion),
    )


def _next(manifest: Manifest, confusion: NDArray[Any]) -> str:
    """The first of these that holds, from what makes the version useless to what would make it better."""
    test = manifest.metrics.test
    if manifest.champion.worse:
        return f"keep version {manifest.champion.version}, which is significantly better on the same images"
    if not test.images:
        return "give it test images (a test folder, or --test-fraction above 0) and train again"
    low, high = test.accuracy_interval
    commonest = confusion.sum(axis=1)
    if low <= commonest.max() / test.images:
        name = manifest.class_names[int(commonest.argmax())]
        return (
            f"do not serve it yet. It is not clearly better than always saying {name}; look whether the labels are "
            "right (python -m training audit), and give it more images"
        )
    serious = [one.title for one in manifest.audit.findings if one.severity == "error"]
    if serious:
        return f"before it is trusted, look at what the audit of the data found: {', '.join(serious)}"
    if record.untested(manifest.data):
        return "give it test images of every class; some have none (see the data)"
    if high - low > _WIDE:
        return f"serve it to try it, and test it on more than {test.images} images to know how good it is"
    weakest = min(test.classes, key=lambda one: one.recall)
    if weakest.recall_interval and weakest.recall_interval[1] < test.accuracy:
        return f"serve it. {_weak(weakest, manifest, confusion)}"
    return "serve it"


def _weak(one: ClassMetrics, manifest: Manifest, confusion: NDArray[Any]) -> str:
    number = list(manifest.class_names).index(one.label)
    answers = confusion[number].copy()
    missed = one.images - int(answers[number])
    answers[number] = 0
    mostly = manifest.class_names[int(answers.argmax())]
    return (
        f"More training images of {one.label} would help most: {missed} of its {one.images} test images were missed, "
        f"mostly taken for {mostly}"
    )
