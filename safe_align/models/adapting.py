"""Models that are trained through an adapter: which may be, and what they share."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from safe_align.config import UserError
from safe_align.engine import Engine
from safe_align.models.adapters import LoraOptions, add_adapter, is_adapted, targets_of
from safe_align.models.loading import architecture_of, config_of, place
from safe_align.models.policy import bare, enable_checkpointing
from safe_align.models.record import base_of


def check_start(name_or_path: str, flag: str, options: LoraOptions, trust_remote_code: bool = False) -> None:
    """Refuse a model that an adapter cannot be trained and written on, before its weights are read.

    Raises:
        UserError: it is an adapter itself, or `peft` could not open it, or it has no such linear layers.
    """
    architecture = architecture_of(config_of(name_or_path, flag, trust_remote_code))
    if base_of(name_or_path) is not None:
        raise UserError(
            f'{flag} {name_or_path}: an adapter, and no base for another one; train it with --merge_lora, or merge it'
        )
    if architecture.endswith('ForScore'):
        raise UserError(f'{flag} {name_or_path}: a {architecture}, which an adapter could not be opened on')
    check_targets(name_or_path, options, trust_remote_code)


def check_targets(name_or_path: str, options: LoraOptions, trust_remote_code: bool = False) -> None:
    """Refuse a model without the linear layers that are asked for, before its weights are read.

    Raises:
        UserError: it says which it has.
    """
    try:
        config = AutoConfig.from_pretrained(place(name_or_path), trust_remote_code=trust_remote_code)
        with torch.device('meta'):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception:
        return  # what is wrong with it is told where it is opened
    targets_of(model, options.targets)


def adapt(model: nn.Module, options: LoraOptions) -> None:
    """Freeze a policy or score model, and put an adapter into it, unless it was opened with one: that goes on."""
    if not is_adapted(bare(model)):
        add_adapter(bare(model), options)


def make_trainable(model: nn.Module, options: LoraOptions | None, checkpointing: bool = False) -> None:
    """With an adapter if there are options for one, and, if asked, with activations that are computed again."""
    if options:
        adapt(model, options)
    if checkpointing:
        enable_checkpointing(model)


class Shared:
    """Frozen parameters that are equal are held once, whichever models they are in.

    So the policy and the reference, or several score models that are adapters of one base, are one model in memory.
    What is equal is known by content: a base has other names in a score model, and may have been copied to another
    directory.
    """

    def __init__(self) -> None:
        self.known: dict[Any, list[nn.Parameter]] = defaultdict(list)

    def hold(self, engine: Engine) -> Engine:
        """Share what an engine holds, but for DeepSpeed's, which keeps hold of the parameters that it was given."""
        if not engine.placement.uses_deepspeed:
            self.take(engine.module)
        return engine

    def take(self, model: nn.Module) -> None:
        """Put parameters that are known in the place of equal ones, and know the others from now on."""
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    setattr(module, name, self._one(parameter))

    def _one(self, parameter: nn.Parameter) -> nn.Parameter:
        beginning = tuple(parameter.flatten()[:8].tolist())
        alike = self.known[parameter.dtype, parameter.device, parameter.shape, beginning]
        for one in alike:
            if one is parameter or (torch.equal(one, parameter) and torch.equal(_scales(one), _scales(parameter))):
                return one
        alike.append(parameter)
        return parameter


def _scales(parameter: Any) -> torch.Tensor:
    """What the numbers of a matrix in 4 bits are multiples of; of others nothing."""
    state = getattr(parameter, 'quant_state', None)
    return torch.empty(0) if state is None else state.absmax
