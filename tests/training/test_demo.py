"""The demo makes everything in its folder anew, and must never take anything else for its own."""

from pathlib import Path

import pytest
from rich.console import Console

from training import demo
from training.errors import SettingError


def test_a_folder_that_is_not_the_demo_s_is_left_alone(tmp_path: Path):
    """`--folder .` where models lie deletes none of them."""
    version = tmp_path / "models" / "pets" / "1" / "manifest.json"
    version.parent.mkdir(parents=True)
    version.touch()
    with pytest.raises(SettingError, match="expected a folder of the demo's own"):
        demo.run(tmp_path, 0, 0, Console(quiet=True))
    assert version.exists()


def test_what_an_earlier_demo_left_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Known by the mark that it leaves before anything else."""

    def stop(*_: object, **__: object) -> int:
        raise SettingError("here")

    monkeypatch.setattr(demo, "_command", stop)
    for _ in range(2):
        with pytest.raises(SettingError, match="here"):
            demo.run(tmp_path / "demo", 0, 0, Console(quiet=True))
        assert not (tmp_path / "demo" / "documents").exists()
        (tmp_path / "demo" / "documents").mkdir()
