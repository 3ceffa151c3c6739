"""What this machine has to compute with."""

from pathlib import Path


def cpu_flags() -> frozenset[str]:
    """The CPU's flags, such as "amx_bf16"; empty where there is no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.split()) for line in lines if line.startswith("flags")), frozenset())


def has_gpu() -> bool:
    """Whether the NVIDIA driver shows a GPU."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))
