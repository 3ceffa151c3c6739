"""service/engine/runtime.py: the fastest engine that reproduces the goldens is taken."""

import os

import numpy as np
import pytest

from protos.manifest_pb2 import Goldens, Manifest
from service.engine import runtime
from service.engine.runtime import Candidate, candidates, load
from service.errors import BrokenVersion
from service.image import ImageSpec
from service.version import Version

_AMX = frozenset({"avx512f", "amx_bf16"})


@pytest.mark.parametrize(
    ("engine", "flags", "gpu", "expected"),
    [
        ("auto", _AMX, False, ["openvino/bf16", "openvino/f32", "tensorflow/f32"]),
        ("auto", frozenset({"avx2"}), False, ["openvino/f32", "tensorflow/f32"]),
        ("auto", frozenset(), True, ["tensorflow/f32", "openvino/f32", "tensorflow/f32"]),
        ("openvino", _AMX, True, ["openvino/bf16", "openvino/f32"]),
        ("openvino", frozenset(), False, ["openvino/f32"]),
        ("openvino/bf16", frozenset(), False, ["openvino/bf16"]),
        ("openvino/f32", _AMX, False, ["openvino/f32"]),
        ("tensorflow", _AMX, False, ["tensorflow/f32"]),
    ],
)
def test_candidates_by_host(engine: str, flags: frozenset[str], gpu: bool, expected: list[str]) -> None:
    """GPU hosts try TensorFlow first, CPU hosts OpenVINO; bf16 only by name or where the CPU has it."""
    assert [one.name for one in candidates(engine, flags, gpu)] == expected


class _Modules:
    """Stands in for the engines' modules; each name says how it behaves."""

    def import_module(self, name: str) -> "_Modules":
        if name == "missing":
            raise ImportError(name)
        return self

    def Loaded(self, version: Version, name: str, threads: int, host_threads: int = 1) -> "_Fake":  # noqa: ARG002, N802 - as engines have it
        if name == "crashes":
            raise RuntimeError("cannot read this model")
        return _Fake(name, os.sched_getaffinity(0), host_threads)


class _Fake:
    max_batch = 4

    def __init__(self, name: str, cores: set[int], host_threads: int) -> None:
        self.name = name
        self.loaded_on = cores
        self.host_threads = host_threads

    def predict(self, pixels: np.ndarray, *, whole_host: bool = False) -> np.ndarray:
        name = "wrong" if self.name == "wrong on-whole-host" and whole_host else self.name.split(maxsplit=1)[0]
        scores = {"right": [0.7, 0.3], "near": [0.69, 0.31], "wrong": [0.3, 0.7]}[name]
        return np.array([scores] * len(pixels), np.float32)


@pytest.fixture
def version(tmp_path, monkeypatch):
    """A version with one golden, whose pixels are given."""
    monkeypatch.setattr(runtime, "importlib", _Modules())
    monkeypatch.setattr(runtime, "golden_pixels", lambda *_: np.zeros((1, 8, 8, 3), np.uint8))
    goldens = Goldens()
    goldens.goldens.add(image="a", scores=[0.7, 0.3])
    monkeypatch.setattr(Version, "goldens", lambda _: goldens)
    return Version(tmp_path, Manifest(class_names=["a", "b"]), ImageSpec(8))


def _try(version: Version, *names: str) -> str:
    choices = [Candidate(name, "missing" if name == "missing" else "there", 0.02) for name in names]
    return load(version, choices, threads=1).name


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("right", "near"), "right"),
        (("near", "right"), "near"),
        (("wrong", "right"), "right"),
        (("missing", "crashes", "wrong", "wrong on-whole-host", "near", "right"), "near"),
    ],
    ids=" ".join,
)
def test_the_first_that_works_and_is_right_is_taken(version: Version, names: tuple[str, ...], taken: str) -> None:
    """One that is not installed, cannot load the model or gives other scores is passed over."""
    assert _try(version, *names) == taken


def test_when_none_is_right_every_reason_is_told(version: Version) -> None:
    """The refusal names each candidate and what was wrong with it."""
    with pytest.raises(BrokenVersion) as refused:
        _try(version, "missing", "crashes", "wrong")
    text = str(refused.value)
    assert "missing: not installed" in text
    assert "crashes: does not load the model (RuntimeError: cannot read this model)" in text
    assert "wrong: golden a: scores differ from the trainer's by 0.4000, allowed 0.02" in text


@pytest.mark.parametrize(("host_cores", "host_threads", "loaded_on"), [(set(), 1, {3}), ({3, 4}, 2, {3, 4})])
def test_only_what_uses_other_cores_is_loaded_on_them(
    version: Version, monkeypatch, host_cores, host_threads, loaded_on
) -> None:
    """The process, its first thread, sees all cores while it loads, and is back on its own one afterwards."""
    on = [{3}]
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: on[-1])
    monkeypatch.setattr(runtime.os, "sched_setaffinity", lambda _, cores: on.append(cores))
    monkeypatch.setattr(runtime.os, "setpriority", lambda *_: None)
    choice = Candidate("right", "there", 0.02, aside=True)
    loaded = load(version, [choice], threads=1, host_cores=host_cores)
    assert (loaded.host_threads, loaded.loaded_on, on) == (host_threads, loaded_on, [{3}, loaded_on, {3}])


def test_a_gpu_that_tensorflow_cannot_use_is_told(version_factory, tmp_path, monkeypatch, caplog) -> None:
    """Without the CUDA libraries TensorFlow would compute on the CPU, slower than OpenVINO, and say nothing."""
    import tensorflow as tf  # noqa: PLC0415 - seconds

    from service.version import read_version  # noqa: PLC0415

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])
    loaded = load(read_version(version_factory(tmp_path)), candidates("auto", frozenset(), has_gpu=True), threads=1)
    assert loaded.name == "openvino/f32"
    assert "tensorflow/f32: does not load the model (RuntimeError: this host has a GPU" in caplog.text


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_openvino_gives_each_image_its_own_scores(version_factory, tmp_path, size: int) -> None:
    """Whatever the batch size and the number of threads, an image's scores are those that it has alone."""
    from service.engine.openvino import Loaded  # noqa: PLC0415 - pins itself to what is there
    from service.version import read_version  # noqa: PLC0415

    loaded = Loaded(read_version(version_factory(tmp_path)), "openvino/f32", 1, host_threads=2)
    pixels = np.random.default_rng(size).integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
    together = loaded.predict(pixels)
    assert together.shape == (size, 4)
    for whole_host in (False, True):
        one_by_one = np.concatenate([loaded.predict(one[None], whole_host=whole_host) for one in pixels])
        assert np.abs(together - one_by_one).max() < 1e-6
    assert np.ptp(together, axis=0).max() > 1e-4 or size == 1
