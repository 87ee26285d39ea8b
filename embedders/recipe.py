"""How vectors are computed here: device, precision, threads, batch size, chosen by what the machine offers, and why.

A recipe is stored with a space and with each run; it never enters a fingerprint.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feature_repo.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
CPU_TOKEN_BUDGET = 1_024
CUDA_TOKEN_BUDGET = 65_536
_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
"""Of NVIDIA: without one of them torch finds none of its devices."""
_AMD_DEVICE = Path("/dev/kfd")
"""What torch calls CUDA, too."""
# Python's own work per batch holds the interpreter lock; more workers than this wait for each other.
MAX_WORKERS = 8


@dataclass(frozen=True)
class EncodingRecipe:
    """One way of computing vectors.

    ``threads`` is the number of processor threads, ``token_budget`` the padded tokens of one batch, ``reason`` says
    in words why device and precision are what they are.
    """

    device: str
    precision: str
    threads: int
    token_budget: int
    runtime: str = "torch"
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EncodingRecipe:
        """The recipe that :meth:`to_json` wrote."""
        return cls(**value)


def choose_recipe(
    device: str = "auto", precision: str = "auto", threads: int | None = None, token_budget: int | None = None
) -> EncodingRecipe:
    """The recipe for this machine; what is ``auto`` or None is chosen. Imports torch.

    :raises UsageError: if an option is unknown, or CUDA is asked for and not there.
    """
    _check(device, precision, threads, token_budget)
    device, device_reason = _choose_device(device)
    precision, precision_reason = _choose_precision(precision, device)
    return EncodingRecipe(
        device=device,
        precision=precision,
        threads=threads or available_processors(),
        token_budget=token_budget or (CUDA_TOKEN_BUDGET if device == "cuda" else CPU_TOKEN_BUDGET),
        reason=f"{device_reason}; {precision_reason}",
    )


def numpy_recipe(
    device: str = "auto", precision: str = "auto", threads: int | None = None, token_budget: int | None = None
) -> EncodingRecipe | None:
    """The recipe for computing in numpy; None where device or precision want torch. Imports no torch.

    :raises UsageError: as :func:`choose_recipe`.
    """
    _check(device, precision, threads, token_budget)
    if device == "cuda" or precision == "bf16" or (device == "auto" and _has_driver()):
        return None
    return EncodingRecipe(
        device="cpu",
        precision="fp32",
        threads=threads or available_processors(),
        token_budget=token_budget or CPU_TOKEN_BUDGET,
        runtime="numpy",
        reason=f"{'no CUDA device' if device == 'auto' else 'device cpu was asked for'}; fp32: a few texts at a time",
    )


def available_processors() -> int:
    """Processors that this process may use; ``OMP_NUM_THREADS`` lowers it."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(processors, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else processors


def processor_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX-512 BF16, AMX, Arm BF16).

    Support in oneDNN alone is not enough: it emulates bf16 on processors without it, several times slower than fp32.
    """
    import torch

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else _proc_flags()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16", "sve_bf16"))


def _proc_flags() -> dict[str, bool]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return dict.fromkeys(stream.read().split(), True)
    except OSError:
        return {}


def _choose_device(asked: str) -> tuple[str, str]:
    import torch

    present = torch.cuda.is_available()
    if asked == "cuda" and not present:
        build = f"torch {torch.__version__}" + ("" if torch.version.cuda else ", which is built without CUDA")
        raise UsageError(
            f"--device cuda was asked for, but there is no usable CUDA device: this machine offers cpu "
            f"({available_processors()} processors; {build}). Use --device cpu or --device auto, or install a CUDA "
            "build of torch and its driver."
        )
    if asked == "cpu":
        return "cpu", "device cpu was asked for"
    if present:
        return "cuda", f"CUDA device {torch.cuda.get_device_name()}"
    return "cpu", "no CUDA device"


def _choose_precision(asked: str, device: str) -> tuple[str, str]:
    import torch

    if asked != "auto":
        return asked, f"{asked} was asked for"
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        if major >= 8:
            return "bf16", f"bf16: compute capability {major}.{minor} has it"
        return "fp32", f"fp32: compute capability {major}.{minor} has no bf16 (8.0 has)"
    if processor_has_bf16():
        return "bf16", "bf16: the processor has it"
    return "fp32", f"fp32: the processor has no bf16 ({torch.backends.cpu.get_cpu_capability()})"


def _has_driver() -> bool:
    """Whether there may be a CUDA device, as a driver is there. torch, whose import is slow, is not asked."""
    if _AMD_DEVICE.exists():
        return True
    for name in _DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def _check(device: str, precision: str, threads: int | None, token_budget: int | None) -> None:
    _one_of("device", device, DEVICES)
    _one_of("precision", precision, PRECISIONS)
    for name, number in (("threads", threads), ("token_budget", token_budget)):
        if number is not None and number < 1:
            raise UsageError(f"{name} must be at least 1, not {number}.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} {value!r} is unknown; allowed are {', '.join(allowed)}.")
