"""training.documents: sample pages that are readable, varied, and the same for the same seed."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from training.dataset import index
from training.documents import KINDS, generate
from training.documents.page import Page
from training.documents.scan import scan


def contents(root: Path) -> dict[str, bytes]:
    """Every file's bytes by relative path."""
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """Two pages of each kind."""
    out = tmp_path_factory.mktemp("documents")
    generate(out, 2)
    return out


def test_pages_can_be_indexed(pages):
    """At least ten classes, every page readable, different from all others, grey and about 600 x 780."""
    dataset = index(pages, pages)
    assert len(dataset.class_names) == len(KINDS) >= 10
    assert dataset.rejected == ()
    assert len({image.sha256 for image in dataset.images}) == 2 * len(KINDS)
    for image in dataset.images:
        with Image.open(image.path) as page:
            assert page.mode == "L"
            assert sorted(page.size) == [600, 780]


def test_deterministic_and_each_page_by_itself(pages, tmp_path):
    """The same seed gives the same bytes; fewer pages per class are a part of more; another seed gives other pages."""
    progress = []
    generate(tmp_path / "one", 1, on_progress=lambda done, total: progress.append((done, total)))
    generate(tmp_path / "other", 1, seed=1)
    every, one, other = contents(pages), contents(tmp_path / "one"), contents(tmp_path / "other")
    assert one.items() <= every.items()
    assert not set(one.values()) & set(other.values())
    assert progress == [(done, len(KINDS)) for done in range(1, len(KINDS) + 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_for_many_seeds(kind):
    """Whatever the dice say, a page is drawn, and there is ink on it and paper too."""
    for seed in range(5):
        page = Page(Random(seed), landscape=seed % 4 == 0)
        KINDS[kind](page)
        assert scan(page).size == (page.width, page.height)
        assert np.asarray(page.image).std() > 4
