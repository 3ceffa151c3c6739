"""Imports Keras without its chatter, and without walking all of it whenever garbage is collected.

TensorFlow's C++ libraries write notes about CPU features and missing GPUs to file descriptor 2 while they load,
whatever their own log levels say. They are held back, and shown after all when the import fails.

What is imported stays to the end, so the collector is told to leave all these objects alone: else it goes through
them time and again while they are made, while graphs are traced, and when the process ends (6.6 s to import and end,
5.2 so, on two cores).
"""

import gc
import os
import sys
import tempfile
from typing import Any


def import_keras() -> None:
    """Imports TensorFlow and Keras (about 4 s); what they print is shown only when that fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.stderr.flush()
    terminal = os.dup(2)
    gc.disable()
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import keras  # noqa: PLC0415, F401 - four seconds that `--help` and a wrong path should not cost
            import tensorflow as tf  # noqa: PLC0415 - the same

            for gpu in tf.config.list_physical_devices("GPU"):  # says so when there is no driver
                # not all of it: the test of the export has an engine of its own on the same GPU
                tf.config.experimental.set_memory_growth(gpu, True)
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            gc.freeze()
            gc.enable()
            os.dup2(terminal, 2)
            os.close(terminal)


def import_openvino() -> Any:  # noqa: ANN401 - openvino is untyped
    """Imports OpenVINO for who runs it in this process, and NNCF after it, so that neither reports to its makers.

    Else OpenVINO gives the user a number in ~/intel while it is imported, and NNCF tells what it does.

    Raises:
        ImportError: it is not installed.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None: it cannot be imported
    import openvino  # noqa: PLC0415 - GPU hosts have none

    return openvino
