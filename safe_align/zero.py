"""Engines under DeepSpeed: ZeRO 1 to 3, with offload; the result is that of one process.

Stage 0 on several processes runs as stage 1, and stage 1 in half precision as stage 2, which adds up in float32.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn
from torch.nn import functional as F

from safe_align import distributed
from safe_align.engine import MOMENTS, Engine, OptimizerOptions, Placement

warnings.filterwarnings('ignore', r'`torch\.distributed\.\w+` is deprecated', FutureWarning)  # DeepSpeed calls them
# Else it compiles a collective for CPUs when it starts, which training has no use for.
deepspeed.ops.__compatible_ops__['deepspeed_shm_comm'] = False


def deepspeed_config(placement: Placement, options: OptimizerOptions | None) -> dict[str, Any]:
    """DeepSpeed's own options; the loop owns accumulation, schedules and logs."""
    cpu = {'device': 'cpu', 'pin_memory': torch.cuda.is_available()}
    half = placement.bf16 or placement.fp16
    zero: dict[str, Any] = {'stage': max(placement.zero_stage, 2 if half else 1)}
    if placement.offload in ('optimizer', 'all') and options is not None:
        zero['offload_optimizer'] = cpu
    if placement.offload in ('parameter', 'all') and placement.zero_stage == 3:
        zero['offload_param'] = cpu
    if placement.zero_stage == 3:
        zero['stage3_param_persistence_threshold'] = 10_000
    return {
        'train_micro_batch_size_per_gpu': 1,
        'gradient_accumulation_steps': 1,
        'steps_per_print': 2**31,
        'gradient_clipping': options.max_grad_norm if options else 0.0,
        'zero_optimization': zero,
        'zero_allow_untested_optimizer': True,
        'zero_force_ds_cpu_optimizer': False,
        'data_types': {'grad_accum_dtype': 'fp32'} if half else {},
        'bf16': {'enabled': placement.bf16},
        'fp16': {'enabled': placement.fp16},
    }


class ZeroEngine(Engine):
    """A model under DeepSpeed."""

    def _place(self, model: nn.Module) -> None:
        distributed.initialise()
        if self.options is None and self.placement.zero_stage < 3:
            self.module = self.model = model.to(self.device, self.placement.dtype)
            return
        optimizer = self.options.adamw(model, fused=True) if self.options else None
        self.model, self.optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=deepspeed_config(self.placement, self.options)
        )
        self.module = self.model.module
        if optimizer is not None:
            self._make_moments()

    def _make_moments(self) -> None:
        """Adam's states, from the start: DeepSpeed makes them at the first step, and links the first group's alone."""
        is_sharded = self.placement.zero_stage == 3
        name = 'fp32_partitioned_groups_flat' if is_sharded else 'single_partition_of_fp32_groups'
        for share in getattr(self.optimizer, name):
            moments = {key: torch.zeros_like(share) for key in MOMENTS}
            self.optimizer.optimizer.state[share] = {'step': torch.zeros((), device=share.device), **moments}
        if not is_sharded:
            self.optimizer._lazy_init_hp_params_optimizer_state()

    def backward(self, loss: Tensor, last: bool) -> None:
        """As the parent says; DeepSpeed averages over processes where a sum is meant."""
        self.model.set_gradient_accumulation_boundary(last)
        self.model.backward(loss * distributed.world_size(), scale_wrt_gas=False)
        if not last:
            self.model.step()

    def step(self) -> float:
        """As the parent says."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.lr
        self.model.step()
        norm = float(self.model.get_global_grad_norm() or 0.0)
        self.updates += norm < float('inf')
        self.steps += 1
        return norm

    def whole(self) -> contextlib.AbstractContextManager[Any]:
        """As the parent says."""
        if self.placement.zero_stage < 3:
            return contextlib.nullcontext()
        return deepspeed.zero.GatheredParameters(list(self.module.parameters()))

    def load_state(self, tensors: dict[str, Tensor], counts: dict[str, int]) -> None:
        """As the parent says."""
        super().load_state(tensors, counts)
        for state in self.optimizer.optimizer.state.values():
            state['step'].fill_(self.updates)

    def _values(self, parameter: nn.Parameter, moments: bool) -> dict[str, Tensor | None]:
        state = {key: safe_get_full_optimizer_state(parameter, key) for key in (MOMENTS if moments else ())}
        return {'weights': safe_get_full_fp32_param(parameter), **state}

    @torch.no_grad()
    def set_values(self, parameter: nn.Parameter, values: dict[str, Tensor]) -> None:
        """As the parent says."""
        is_sharded = self.placement.zero_stage == 3
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=is_sharded):
            parameter.copy_(values['weights'].to(parameter))
        if is_sharded:
            values = {key: self._share(parameter, value) for key, value in values.items()}
            set_weights, set_moment = safe_set_local_fp32_param, safe_set_local_optimizer_state
        else:
            set_weights, set_moment = safe_set_full_fp32_param, safe_set_full_optimizer_state
        set_weights(parameter, values['weights'])
        for key in MOMENTS:
            if key in values:
                set_moment(parameter, values[key], key)

    def _share(self, parameter: Any, value: Tensor) -> Tensor:
        """What ZeRO 3 keeps of a whole value here; the last process's is filled up to the size of the others'."""
        size: int = parameter.ds_tensor.numel()
        value = F.pad(value.flatten(), (0, size * distributed.world_size() - value.numel()))
        return value[distributed.rank() * size :][:size]
