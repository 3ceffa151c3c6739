"""Sample data that the project makes itself: scanned-looking pages of thirteen kinds of documents.

In the spirit of RVL-CDIP's classes, drawn from scratch: no download, no licence, nobody's letters. Owns the files that
are written; what a page of each kind looks like is correspondence.py, printed.py and records.py, how pages are drawn
page.py, and how they are spoilt scan.py.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Final

from training.documents.correspondence import email, handwritten, letter, memo, resume
from training.documents.page import Page
from training.documents.printed import advertisement, news_article, presentation, scientific_publication
from training.documents.records import budget_table, form, invoice, questionnaire
from training.documents.scan import scan

KINDS: Final[dict[str, Callable[[Page], None]]] = {
    kind.__name__: kind
    for kind in (
        *(advertisement, budget_table, email, form, handwritten, invoice, letter, memo, news_article, presentation),
        *(questionnaire, resume, scientific_publication),
    )
}
"""What draws a page of each class, by the class's name."""

# How often a page lies on its side.
_LANDSCAPE: Final = {"presentation": 0.6, "budget_table": 0.25, "advertisement": 0.1}


def generate(out: Path, per_class: int, seed: int = 0, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Writes `out`/CLASS/NUMBER.jpg (some .png) for every class of `KINDS`.

    Each page depends on the seed, its class and its number only, so that more pages per class add to what is there.

    Args:
        out: the folder; made where it is absent, files of the same name are overwritten.
        per_class: pages of each class.
        seed: another seed gives other pages.
        on_progress: called with (pages done, pages in all).
    """
    for kind in KINDS:
        (out / kind).mkdir(parents=True, exist_ok=True)
    pages = [(out / kind, kind, number, seed) for kind in KINDS for number in range(per_class)]
    # drawing holds the interpreter's lock, so processes, not threads; spawned, as the caller may have threads
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_write, *zip(*pages, strict=True), chunksize=8), start=1):
            if on_progress is not None:
                on_progress(done, len(pages))


def _write(folder: Path, kind: str, number: int, seed: int) -> None:
    rng = Random(f"{seed}/{kind}/{number}")
    page = Page(rng, landscape=rng.random() < _LANDSCAPE.get(kind, 0.0))
    KINDS[kind](page)
    image = scan(page)
    if rng.random() < 0.1:
        image.save(folder / f"{number:05d}.png")
    else:
        image.save(folder / f"{number:05d}.jpg", quality=rng.randint(35, 92))
