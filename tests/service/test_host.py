"""service/host.py and service/pool.py: how many engines a host gets, and where."""

from pathlib import Path

import pytest

from service import host, pool
from service.pool import engine_cores, host_cores


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 0),
        ({"cpu.max": "\n"}, 0),
        ({"cpu/cpu.cfs_quota_us": "350000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0),
        ({"cpu/cpu.cfs_quota_us": "350000\n"}, 0),
        ({}, 0),
    ],
)
def test_the_cpu_quota_of_a_container(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    """Of both versions of control groups; no limit where there is none, and where nothing can be understood."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert host.cpu_quota(tmp_path) == cpus


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Cores 2 to 9 of a host without a GPU, without a quota; this process begins at the sixth of them."""
    monkeypatch.setattr(host, "has_gpu", lambda: False)
    monkeypatch.setattr(host, "cpu_quota", lambda: 0)
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda _: set(range(2, 10)))
    monkeypatch.setattr(pool, "_first_core", 8 * 100 + 5)
    return monkeypatch


def test_one_engine_per_core(eight_cores: pytest.MonkeyPatch) -> None:
    """Without a quota, with one that is larger, and when as many are asked for."""
    everywhere = list(range(2, 10))
    assert engine_cores(0) == engine_cores(8) == everywhere
    assert engine_cores(10) == [*everywhere, 2, 3]
    eight_cores.setattr(host, "cpu_quota", lambda: 64)
    assert engine_cores(0) == everywhere


def test_a_quota_makes_them_fewer_and_they_have_a_core_each(eight_cores: pytest.MonkeyPatch) -> None:
    """They begin at this process's core, always the same ones; a number that was asked for stays."""
    eight_cores.setattr(host, "cpu_quota", lambda: 4)
    assert engine_cores(0) == engine_cores(0) == [7, 8, 9, 2]
    assert engine_cores(2) == [7, 8]
    assert engine_cores(6) == [7, 8, 9, 2, 3, 4]


@pytest.mark.parametrize(
    ("cores", "core", "together"),
    [
        ([None], None, []),
        ([3], 3, []),
        ([3, 4], 4, [4, 3]),
        ([3, 4, 3], 3, [3, 4]),
        ([5, 6, 2, 3, 4], 5, [5, 6, 2, 3]),
        (list(range(16)), 7, [7, 8, 9, 10]),
    ],
    ids=str,
)
def test_an_image_that_has_the_host_to_itself_gets_the_cores_of_the_engines(
    cores: list[int | None], core: int | None, together: list[int]
) -> None:
    """Those next to the engine's own, no more than there are and no more than four."""
    assert host_cores(cores, core) == together


def test_a_gpu_has_one_engine(eight_cores: pytest.MonkeyPatch) -> None:
    """Which may run anywhere."""
    eight_cores.setattr(host, "has_gpu", lambda: True)
    assert (engine_cores(0), engine_cores(2)) == ([None], [None, None])
