"""Which engine runs a model."""

from __future__ import annotations

import ctypes

from torch import nn

from safe_align import distributed
from safe_align.engine import Engine, OptimizerOptions, Placement

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt


def make_engine(model: nn.Module, placement: Placement, options: OptimizerOptions | None = None) -> Engine:
    """The engine that the placement asks for."""
    if distributed.local_device().type == 'cpu':
        keep_freed_memory()
    if not placement.uses_deepspeed:
        return Engine(model, placement, options)
    from safe_align.zero import ZeroEngine

    return ZeroEngine(model, placement, options)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next allocation; nothing happens under another C library.

    Else each large tensor of a step is mapped anew, and the system zeroes its pages one fault at a time, which takes a
    fifth of the time of a step of a small model. The largest are mapped all the same: kept on the heap, they would
    break it up, and a stage with several models would hold half as much memory again.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        for option, value in ((M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20)):
            mallopt(option, value)
