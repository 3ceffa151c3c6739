"""Loss and accuracy of each epoch as TensorBoard's event files.

Not by keras.callbacks.TensorBoard: gradient training calls `fit` once per epoch, and that callback starts a file anew
each time and knows nothing of epoch 0. Nor by tf.summary.scalar: both need the package tensorboard, which only those
need who look at the files. TensorBoard joins the files of an interrupted run and of the one that went on.
"""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from training.errors import SettingError
from training.task import Epoch


class Scalars:
    """A writer for `train` and one for `validation`, as Keras names them.

    Args:
        folder: gets both folders; None to write nothing.

    Raises:
        SettingError: the folder cannot be written to.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if self._folder is None:
            return self
        import tensorflow as tf  # noqa: PLC0415 - only where it was asked for

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writers = {
                side: tf.summary.create_file_writer(str(self._folder / side)) for side in ("train", "validation")
            }
        except (OSError, tf.errors.OpError) as error:
            raise SettingError(f"expected to be able to write to --tensorboard {self._folder}: {error}") from error
        for writer in self._writers.values():
            self._open.callback(writer.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, epoch: Epoch) -> None:
        """Writes what an epoch has; at once, so that it can be watched."""
        if self._folder is None:
            return
        self._write("train", epoch.number, epoch.train_loss, epoch.train_accuracy)
        self._write("validation", epoch.number, epoch.validation_loss, epoch.validation_accuracy)

    def _write(self, side: str, step: int, loss: float | None, accuracy: float | None) -> None:
        import tensorflow as tf  # noqa: PLC0415 - as above

        # What makes a tensor a scalar for TensorBoard.
        kind = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR")
        with self._writers[side].as_default(step):
            for name, value in (("epoch_loss", loss), ("epoch_accuracy", accuracy)):
                if value is not None:
                    tf.summary.write(name, tf.constant(value, tf.float32), metadata=kind)
        self._writers[side].flush()
