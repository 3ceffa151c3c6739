"""`--tensorboard`: event files that carry each epoch's scalars, and that a run which goes on adds to."""

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event

from training.errors import SettingError
from training.scalars import Scalars
from training.task import Epoch


def read_events(folder: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard shows as scalars: the value by tag and step, whichever file it is in."""
    found = {}
    for file in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(file)):
            event = Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found[value.tag, event.step] = pytest.approx(float(tf.make_ndarray(value.tensor)))
    return found


def test_each_epoch_is_there_when_it_ends(tmp_path: Path):
    """Loss and accuracy of both sides by epoch, readable before the end; a second run goes on in the same folder."""
    with Scalars(tmp_path / "new" / "run") as scalars:
        scalars.add(Epoch(0, None, 1.5, 0.25))
        scalars.add(Epoch(1, 0.75, 1.25, 0.5, 0.625))
        assert read_events(tmp_path / "new" / "run" / "train") == {
            ("epoch_loss", 1): 0.75, ("epoch_accuracy", 1): 0.625,
        }  # fmt: skip
    with Scalars(tmp_path / "new" / "run") as scalars:
        scalars.add(Epoch(2, 0.5, 1.0, 0.75, 0.875))
    validation = read_events(tmp_path / "new" / "run" / "validation")
    assert validation == {
        ("epoch_loss", 0): 1.5, ("epoch_accuracy", 0): 0.25,
        ("epoch_loss", 1): 1.25, ("epoch_accuracy", 1): 0.5,
        ("epoch_loss", 2): 1.0, ("epoch_accuracy", 2): 0.75,
    }  # fmt: skip


def test_nothing_asked_for_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a folder there are no files anywhere near."""
    monkeypatch.chdir(tmp_path)
    with Scalars(None) as scalars:
        scalars.add(Epoch(0, None, 1.5, 0.25))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_a_wrong_setting(tmp_path: Path):
    """A file in the way is said in one line."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="--tensorboard"), Scalars(tmp_path / "file" / "logs"):
        pass
