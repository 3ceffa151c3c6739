"""The seam between an engine and what computes: which runtimes there are, and which one a host should use.

A runtime is a loaded version that turns pixels into scores, nothing else. `load` tries the candidates of this host,
fastest first, and takes the first that loads and reproduces the version's goldens.
"""

import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.goldens import check_scores, golden_pixels
from service.errors import BrokenVersion, CapacityError
from service.image import Pixels
from service.version import QUANTIZED, Version

Scores = NDArray[np.float32]

_ASIDE_NICE: Final = 5
"""For each thread a quarter of the time of a core that somebody else wants, all of one that nobody wants."""

_log = logging.getLogger("graft.engine")


class Runtime(Protocol):
    """A loaded model on one device."""

    @property
    def name(self) -> str:
        """Engine and precision, such as "openvino/bf16"."""

    @property
    def max_batch(self) -> int:
        """The batch size that pays; larger ones are no faster per image."""

    @property
    def host_threads(self) -> int:
        """Threads for an image that has the host to itself; 1 where that makes no difference."""

    def predict(self, pixels: Pixels, *, whole_host: bool = False) -> Scores:
        """uint8 [N, S, S, 3] -> float32 [N, C], for any N from 1 to max_batch.

        `whole_host` says that nothing else is to be done there, so `host_threads` may work on this.
        """

    def class_activation_maps(self) -> Callable[[Pixels], NDArray[np.float32]]:
        """Makes ready what computes them, in float32: uint8 [1, S, S, 3] -> float32 [1, h, w, C].

        Only called for a version whose manifest has them. May take seconds and memory; `predict` is not touched.

        Raises:
            NoActivationMap: this engine cannot compute them.
        """


@dataclass(frozen=True)
class Candidate:
    """A runtime that could be loaded.

    Attributes:
        name: engine and precision.
        module: where its class `Loaded` is; imported only when tried, so that one runtime never pays for another.
        tolerance: largest difference of a score from the trained model's float32 one that is still the same answer.
        options: what else its `Loaded` is to know.
        aside: with one thread it computes in its caller's, so it may load in another of low priority. A process cannot
            take its priority back, but a thread has its own, which those inherit that it starts; as they do the cores
            that it may use.
        file: what a version must hold for it; empty where any will do.
    """

    name: str
    module: str
    tolerance: float
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    aside: bool = False
    file: str = ""


_INT8: Final = Candidate("openvino/int8", "service.engine.openvino", 0.05, aside=True, file=QUANTIZED)
_BF16: Final = Candidate("openvino/bf16", "service.engine.openvino", 0.05, aside=True)
_F32: Final = Candidate("openvino/f32", "service.engine.openvino", 0.001, aside=True)
_TENSORFLOW: Final = Candidate("tensorflow/f32", "service.engine.tensorflow", 0.001)
_ON_GPU: Final = replace(_TENSORFLOW, options={"only_on_gpu": True})
_REMOTE: Final = Candidate("tensorflow-serving", "service.engine.tensorflow_serving", 0.05)


def candidates(
    engine: str, cpu_flags: frozenset[str], has_gpu: bool, remote: Mapping[str, Any] | None = None
) -> Sequence[Candidate]:
    """The runtimes to try, fastest first, by the measurements in docs/decisions.md.

    Args:
        engine: one of settings.ENGINES.
        cpu_flags: what the CPU can do.
        has_gpu: whether an NVIDIA GPU is there.
        remote: what `tensorflow-serving` is to know; it is only taken when asked for.
    """
    if engine == _REMOTE.name:
        return [replace(_REMOTE, options=remote or {})]
    # without instructions for it bf16 is emulated and slower than f32, and sums of int8 products may overflow
    on_cpu = [_INT8] if cpu_flags & {"amx_int8", "avx512_vnni", "avx_vnni"} else []
    # AMX's are faster than f32, so are AVX-512's on AMD, which sse4a stands for; on Intel they are slower
    on_cpu += [_BF16] if "amx_bf16" in cpu_flags or {"avx512_bf16", "sse4a"} <= cpu_flags else []
    on_cpu += [_F32]
    everything = [_ON_GPU, *on_cpu, _TENSORFLOW] if has_gpu else [*on_cpu, _TENSORFLOW]
    if engine == "auto":
        return everything
    asked = [one for one in (_INT8, _BF16, _F32, _TENSORFLOW) if one.name == engine]
    return asked or [one for one in everything if one.name.split("/")[0] == engine]


def load(
    version: Version,
    choices: Sequence[Candidate],
    threads: int,
    *,
    host_cores: Set[int] = frozenset(),
) -> Runtime:
    """Loads the version with the first candidate that works and gives the recorded answers.

    Args:
        version: hashes already verified.
        choices: what to try, in this order.
        threads: CPU threads for one inference.
        host_cores: for that of an image that has the host to itself, where that is more than one thread's core.

    Raises:
        BrokenVersion: the pixels of the goldens are not reproduced, or no candidate gives their scores.
        CapacityError: who computes elsewhere cannot do so now, or this host has taken cores away.
    """
    goldens = version.goldens()
    pixels = golden_pixels(version, goldens)
    possible = [choice for choice in choices if not choice.file or (version.path / choice.file).is_file()]
    refusals = []
    for choice in possible:
        try:
            if choice.aside and threads == 1:
                runtime = _aside(choice, version, host_cores)
            else:
                runtime = _load(choice, version, threads)
        except CapacityError:
            raise
        except ImportError:
            refusals.append(f"{choice.name}: not installed")
            continue
        except Exception as error:  # noqa: BLE001 - foreign runtimes raise anything; the next candidate may work
            refusals.append(f"{choice.name}: does not load the model ({type(error).__name__}: {str(error)[:200]})")
            continue
        try:
            check_scores(runtime.predict, pixels, goldens, len(version.manifest.class_names), choice.tolerance)
            if runtime.host_threads > 1:
                predict = partial(runtime.predict, whole_host=True)
                check_scores(predict, pixels, goldens, len(version.manifest.class_names), choice.tolerance)
        except BrokenVersion as error:
            refusals.append(f"{choice.name}: {error}")
            continue
        for refusal in refusals:
            _log.warning("not used: %s", refusal)
        return runtime
    if not possible:
        refusals = [f"{choice.name}: expected {choice.file}, found no file" for choice in choices]
    raise BrokenVersion("; ".join(refusals) or "no engine to try")


def _load(choice: Candidate, version: Version, threads: int, **options: int) -> Runtime:
    module = importlib.import_module(choice.module)
    loaded: Runtime = module.Loaded(version, choice.name, threads, **choice.options, **options)
    return loaded


def _aside(choice: Candidate, version: Version, host_cores: Set[int]) -> Runtime:
    """Loads without taking the core from the engines that answer meanwhile; with `host_cores`, for several threads."""

    def yield_to_others() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _ASIDE_NICE)

    own = os.sched_getaffinity(0)
    with _on(host_cores or own) as cores, ThreadPoolExecutor(1, "graft-load", initializer=yield_to_others) as pool:
        options = {"host_threads": len(cores)} if len(cores) > 1 else {}
        runtime = pool.submit(_load, choice, version, 1, **options).result()
    if cores - own:
        _move_helpers(cores - own)
    return runtime


@contextmanager
def _on(cores: Set[int]) -> Iterator[Set[int]]:
    """Runs this thread on these cores, as oneTBB counts those of a process's first one; says which there are."""
    own = os.sched_getaffinity(0)
    if cores == own:
        yield own
        return
    _move(cores)
    try:
        yield os.sched_getaffinity(0)
    finally:
        _move(own)


def _move_helpers(cores: Set[int]) -> None:
    """Keeps all threads but this one off this one's core, where they would only take turns with it.

    oneTBB has put them on all cores of the process, whoever started them.
    """
    for thread in (int(task.name) for task in Path("/proc/self/task").iterdir()):
        if thread != threading.get_native_id():
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(thread, cores)


def _move(cores: Set[int]) -> None:
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise CapacityError(f"this process may not run on the CPU cores {sorted(cores)}: {error.strerror}") from error
