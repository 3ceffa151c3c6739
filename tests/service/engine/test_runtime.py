"""service/engine/runtime.py: the fastest engine that reproduces the goldens is taken."""

import errno
import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from protos.manifest_pb2 import Goldens, Manifest
from service.engine import runtime
from service.engine.runtime import Candidate, candidates, load
from service.errors import BrokenVersion, CapacityError
from service.image import ImageSpec
from service.version import Version

_RIGHT = [0.7, 0.3]
_AMX = frozenset({"avx512f", "amx_bf16"})
_VNNI = frozenset({"avx512f", "avx512_vnni"})


@pytest.mark.parametrize(
    ("engine", "flags", "gpu", "expected"),
    [
        ("auto", _AMX, False, ["openvino/bf16", "openvino/f32", "tensorflow/f32"]),
        ("auto", frozenset({"avx512_bf16", "sse4a"}), False, ["openvino/bf16", "openvino/f32", "tensorflow/f32"]),
        ("auto", frozenset({"avx512_bf16"}), False, ["openvino/f32", "tensorflow/f32"]),
        ("auto", frozenset({"avx2"}), False, ["openvino/f32", "tensorflow/f32"]),
        ("auto", _VNNI, False, ["openvino/int8", "openvino/f32", "tensorflow/f32"]),
        ("auto", _VNNI | _AMX, False, ["openvino/int8", "openvino/bf16", "openvino/f32", "tensorflow/f32"]),
        ("auto", frozenset(), True, ["tensorflow/f32", "openvino/f32", "tensorflow/f32"]),
        ("openvino", _AMX, True, ["openvino/bf16", "openvino/f32"]),
        ("openvino", frozenset(), False, ["openvino/f32"]),
        ("openvino/bf16", frozenset(), False, ["openvino/bf16"]),
        ("openvino/int8", frozenset(), False, ["openvino/int8"]),
        ("openvino/f32", _AMX, False, ["openvino/f32"]),
        ("tensorflow", _AMX, False, ["tensorflow/f32"]),
    ],
)
def test_candidates_by_host(engine: str, flags: frozenset[str], gpu: bool, expected: list[str]) -> None:
    """GPU hosts try TensorFlow first, CPU hosts OpenVINO; int8 and bf16 only by name or where they are fast."""
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
        scores = {
            "near": [0.69, 0.31],
            "wrong": [0.3, 0.7],
            "wrong-on-whole-host": [0.3, 0.7] if whole_host else _RIGHT,
        }
        return np.array([scores.get(self.name, _RIGHT)] * len(pixels), np.float32)


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
        (("missing", "crashes", "wrong", "near", "right"), "near"),
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


class _Host:
    """Stands in for the kernel: which cores this process runs on, one set after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cores: set[int]) -> None:
        self.cores = cores
        self.ran_on = [{3}]
        self.helpers: dict[int, set[int]] = {}
        monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: self.ran_on[-1])
        monkeypatch.setattr(runtime.os, "sched_setaffinity", self._move)
        monkeypatch.setattr(runtime.os, "setpriority", lambda *_: None)

    def _move(self, thread: int, cores: set[int]) -> None:
        if not cores & self.cores:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if thread:
            self.helpers[thread] = cores
        else:
            self.ran_on.append(cores & self.cores)


_ASIDE = Candidate("right", "there", 0.02, aside=True)


@pytest.mark.parametrize(
    ("host_cores", "ran_on", "host_threads"),
    [(set(), [{3}], 1), ({3, 4}, [{3}, {3, 4}, {3}], 2), ({3, 9}, [{3}, {3}, {3}], 1)],
    ids=["its own core", "two cores", "two cores, of which the host has taken one away"],
)
def test_what_is_to_use_more_cores_is_loaded_on_them(version, monkeypatch, host_cores, ran_on, host_threads) -> None:
    """The first thread is back on its own one afterwards, and others keep off it; as many as there are cores."""
    host = _Host(monkeypatch, {3, 4})
    end = threading.Event()
    helper = threading.Thread(target=end.wait)
    helper.start()
    loaded = load(version, [_ASIDE], threads=1, host_cores=host_cores)
    end.set()
    helper.join()
    assert (loaded.host_threads, loaded.loaded_on, host.ran_on) == (host_threads, ran_on[len(ran_on) // 2], ran_on)
    assert host.helpers.get(helper.native_id) == ({4} if host_threads > 1 else None)
    assert threading.get_native_id() not in host.helpers


def test_cores_that_are_gone_are_not_the_version_s_fault(version: Version, monkeypatch) -> None:
    """So it is tried again later, instead of being refused for good."""
    _Host(monkeypatch, {3})
    with pytest.raises(CapacityError, match=r"may not run on the CPU cores \[7, 8\]: Invalid argument"):
        load(version, [_ASIDE], threads=1, host_cores={7, 8})


def test_both_ways_of_computing_must_be_right(version: Version, monkeypatch) -> None:
    """One that is wrong with several threads is not used with one either."""
    _Host(monkeypatch, {3, 4})
    wrong = replace(_ASIDE, name="wrong-on-whole-host")
    assert load(version, [wrong, _ASIDE], threads=1, host_cores={3, 4}).name == "right"
    assert load(version, [wrong, _ASIDE], threads=1).name == "wrong-on-whole-host"


def test_what_a_version_does_not_hold_is_not_tried(version: Version, caplog) -> None:
    """And nobody is told, unless nothing else was asked for."""
    needs = replace(_ASIDE, file="assets.extra/more.xml")
    assert load(version, [needs, replace(_ASIDE, name="other")], threads=1).name == "other"
    assert not caplog.records
    with pytest.raises(BrokenVersion, match=r"^right: expected assets.extra/more.xml, found no file$"):
        load(version, [needs], threads=1)
    (version.path / needs.file).parent.mkdir()
    (version.path / needs.file).touch()
    assert load(version, [needs, replace(_ASIDE, name="other")], threads=1).name == "right"


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
