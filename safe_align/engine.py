"""A model that is trained or frozen: plain torch here, DeepSpeed in `zero.py`. A step is an optimizer step.

Weights and optimizer states are float32; with bf16 the matrix products are bfloat16 (autocast on one process,
bfloat16 weights with float32 masters under DeepSpeed).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import get_scheduler

from safe_align import distributed
from safe_align.config import UserError

if not torch.cuda.is_available():
    os.environ.setdefault('DS_ACCELERATOR', 'cpu')  # else DeepSpeed looks for others and talks about it

MOMENTS = ('exp_avg', 'exp_avg_sq')  # of Adam, one a parameter


@dataclass(frozen=True)
class Placement:
    """Where and how models run: the part of a stage's options that engines need."""

    bf16: bool = False
    fp16: bool = False
    zero_stage: int = 0
    offload: str = 'none'

    @property
    def uses_deepspeed(self) -> bool:
        """Whether DeepSpeed runs the trained models."""
        return distributed.world_size() > 1 or self.zero_stage > 0 or self.offload != 'none'

    @property
    def dtype(self) -> torch.dtype:
        """The type of matrix products."""
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else torch.float32

    def check(self) -> None:
        """Refuse what this machine cannot do.

        Raises:
            UserError: it names the flag.
        """
        if self.bf16 and self.fp16:
            raise UserError('--bf16 and --fp16: choose one')
        if self.bf16 and not can_bf16():
            raise UserError('--bf16: this processor has no bfloat16 arithmetic; use --bf16 False')
        if self.fp16 and not (torch.cuda.is_available() and self.uses_deepspeed):
            raise UserError('--fp16: runs on GPUs under DeepSpeed alone; use --bf16')
        if self.uses_deepspeed and not distributed.launched():
            _pretend_launched()

    def compute(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which a float32 model runs in this type."""
        if self.dtype == torch.float32 or self.uses_deepspeed:
            return contextlib.nullcontext()
        return torch.autocast(distributed.local_device().type, self.dtype)


def can_bf16() -> bool:
    """Whether bfloat16 matrix products run in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() or os.uname().machine == 'arm64'


def _narrow(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold frozen matrices in the type that autocast would put them in each time, to the same effect.

    Embeddings stay wide, so a matrix that is tied to one gets values of its own; so does a score head, which is not run
    under autocast.
    """
    head = getattr(getattr(model, 'model', None), 'score', None)
    for module in model.modules():
        if not isinstance(module, nn.Linear) or module is head or module.weight.requires_grad:
            continue
        if module.weight.is_floating_point():  # else it is in 4 bits
            module.weight = nn.Parameter(module.weight.to(dtype), requires_grad=False)


def _pretend_launched() -> None:
    """DeepSpeed on one process wants the variables that a launcher sets."""
    for name, value in {'RANK': '0', 'LOCAL_RANK': '0', 'WORLD_SIZE': '1', 'MASTER_ADDR': '127.0.0.1'}.items():
        os.environ.setdefault(name, value)
    if 'MASTER_PORT' not in os.environ:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            os.environ['MASTER_PORT'] = str(free.getsockname()[1])


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW and its schedule, as the flags of the same names say."""

    lr: float
    weight_decay: float
    lr_scheduler_type: str
    lr_warmup_ratio: float
    max_grad_norm: float
    total_steps: int

    def schedule(self) -> Callable[[int], float]:
        """The learning rate as a function of the steps done."""
        stand_in = torch.optim.SGD([torch.zeros(1)], lr=self.lr or 1.0)
        warmup = round(self.lr_warmup_ratio * self.total_steps)
        # transformers lets it end at 1e-7 and refuses to begin below
        end = {'lr_end': self.lr / 10} if self.lr_scheduler_type == 'polynomial' and self.lr <= 1e-7 else {}
        factor = get_scheduler(self.lr_scheduler_type, stand_in, warmup, self.total_steps, end).lr_lambdas[0]
        return lambda steps: self.lr * factor(steps)

    def adamw(self, model: nn.Module, **options: Any) -> torch.optim.AdamW:
        """Matrices decay; biases, norms and other vectors do not."""
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {'params': [p for p in trained if (p.ndim > 1) == is_matrix], 'weight_decay': decay}
            for is_matrix, decay in ((True, self.weight_decay), (False, 0.0))
        ]
        groups = [group for group in groups if group['params']]
        return torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.95), **options)


class Engine:
    """A model and its optimizer on one process.

    Args:
        model: called on packed batches.
        placement: precision and parallelism.
        options: the optimizer; without them the model is frozen.
    """

    module: Any  # the bare model
    model: Any  # what is called

    def __init__(self, model: nn.Module, placement: Placement, options: OptimizerOptions | None = None) -> None:
        self.placement, self.options = placement, options
        self.device = distributed.local_device()
        self.steps = self.updates = 0  # steps of the schedule; those among them that moved the weights
        if options is None:
            model.requires_grad_(False).eval()
        else:
            self.schedule = options.schedule()
        self._place(model)

    def _place(self, model: nn.Module) -> None:
        if self.placement.dtype != torch.float32:
            _narrow(model, self.placement.dtype)
        self.module = self.model = model.to(self.device)
        self.optimizer: Any = self.options.adamw(model, fused=True) if self.options else None

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.schedule(self.steps)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward in the placement's precision."""
        with self.placement.compute():
            return self.model(*args, **kwargs)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of this share of a step's loss; `last` says that `step` comes next.

        The loss is divided by the counts of the whole step over all processes, so gradients are summed over them.
        """
        loss.backward()

    def step(self) -> float:
        """Clip, move the weights, forget the gradient; return its norm. A norm that is not finite moves nothing."""
        assert self.options is not None
        for group in self.optimizer.param_groups:
            group['lr'] = self.lr
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.device.type == 'cpu':  # a long vector's norm in float32 loses digits there
            gradients = [piece for gradient in gradients for piece in gradient.flatten().split(1 << 16)]
        total = nn.utils.get_total_norm(gradients)
        norm = float(total)
        if norm < float('inf'):
            if 0 < self.options.max_grad_norm < norm:
                nn.utils.clip_grads_with_norm_(parameters, self.options.max_grad_norm, total)
            self.optimizer.step()
            self.updates += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return norm

    def whole(self) -> contextlib.AbstractContextManager[Any]:
        """Whole parameters on every process, for generation and saving."""
        return contextlib.nullcontext()

    def state(self, moments: bool = True, frozen: bool = False) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Float32 weights and Adam's moments under whole names, and counts; the same however they are sharded.

        They are those of what is trained, unless what is `frozen` is asked for too.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters(frozen):
            for key, value in self._values(parameter, moments).items():
                if value is not None:
                    tensors[f'{name}.{key}'] = value.detach().float().cpu()
        return tensors, {'steps': self.steps, 'updates': self.updates}

    def load_state(self, tensors: dict[str, Tensor], counts: dict[str, int]) -> None:
        """Go on from what `state` returned."""
        self.steps, self.updates = counts['steps'], counts['updates']
        for name, parameter in self._parameters():
            found = {key: tensors[f'{name}.{key}'] for key in ('weights', *MOMENTS) if f'{name}.{key}' in tensors}
            self.set_values(parameter, found)

    def _parameters(self, frozen: bool = False) -> list[tuple[str, nn.Parameter]]:
        return [(name, one) for name, one in self.module.named_parameters() if frozen or one.requires_grad]

    def _values(self, parameter: nn.Parameter, moments: bool) -> dict[str, Tensor | None]:
        state = self.optimizer.state.get(parameter, {}) if moments else {}
        return {'weights': parameter.data, **{key: state.get(key) for key in MOMENTS}}

    @torch.no_grad()
    def set_values(self, parameter: nn.Parameter, values: dict[str, Tensor]) -> None:
        """Give a parameter new float32 weights, whole, and Adam's moments where they are given too."""
        parameter.copy_(values['weights'])
        if MOMENTS[0] in values:
            moments = {key: values[key].to(self.device) for key in MOMENTS}
            self.optimizer.state[parameter] = {'step': torch.tensor(float(self.updates), device=self.device), **moments}
