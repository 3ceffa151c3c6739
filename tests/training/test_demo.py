"""The demo makes everything of its own anew, and must never take anything else for its own."""

from pathlib import Path

import pytest
from rich.console import Console

from training import demo
from training.errors import SettingError


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch):
    """Starts a demo that ends where its first command would run."""

    def stop(*_: object, **__: object) -> int:
        raise SettingError("here")

    def run(folder: Path, says: str) -> None:
        with pytest.raises(SettingError, match=says):
            demo.run(folder, 0, 0, Console(quiet=True))

    monkeypatch.setattr(demo, "_command", stop)
    return run


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_what_an_earlier_demo_left_is_made_anew(tmp_path: Path, begin):
    """Pages and the model's versions."""
    begin(tmp_path / "demo", "here")
    left = [
        _file(tmp_path / "demo" / name)
        for name in ("documents/memo/1.jpg", "unseen/memo/1.jpg", "models/documents/1/manifest.json")
    ]
    begin(tmp_path / "demo", "here")
    assert not any(file.exists() for file in left)


@pytest.mark.parametrize("name", ["documents/memo/1.jpg", "models/documents/1/manifest.json"])
def test_what_bears_a_name_of_the_demo_s_is_left_alone(tmp_path: Path, begin, name: str):
    """`--folder .` where somebody has such a folder."""
    file = _file(tmp_path / name)
    begin(tmp_path, "expected folders of the demo's own")
    assert file.exists()
    assert list(tmp_path.iterdir()) == [tmp_path / Path(name).parts[0]]


def test_what_came_beside_an_earlier_demo_stays(tmp_path: Path, begin):
    """A demo, then somebody's own model and data in the same folder, then another demo."""
    begin(tmp_path, "here")
    own = [_file(tmp_path / name) for name in ("models/pets/1/manifest.json", "photos/cat/1.jpg")]
    begin(tmp_path, "here")
    assert all(file.exists() for file in own)
