"""What this machine has to compute with."""

import math
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


def cpu_flags() -> frozenset[str]:
    """The CPU's flags, such as "amx_bf16"; empty where there is no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.split()) for line in lines if line.startswith("flags")), frozenset())


def cpu_quota(cgroup: Path = _CGROUP) -> int:
    """How many CPUs' time this container may use, rounded up; 0 for no limit.

    `docker run --cpus` and Kubernetes' limits are such quotas: they leave every core in the process's affinity.

    Args:
        cgroup: where the control groups are mounted: version 2's, or version 1's with one folder per controller.
    """
    try:
        quota, period = _said(cgroup / "cpu.max").split()
    except (OSError, ValueError):
        try:
            quota, period = (_said(cgroup / "cpu" / f"cpu.cfs_{what}_us") for what in ("quota", "period"))
        except OSError:
            return 0
    limited = quota.isdigit() and period.isdigit()  # else "max", or version 1's -1
    return max(1, math.ceil(int(quota) / int(period))) if limited and int(period) else 0


def _said(file: Path) -> str:
    return file.read_text(encoding="ascii").strip()


def has_gpu() -> bool:
    """Whether the NVIDIA driver shows a GPU."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))
