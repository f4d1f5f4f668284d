"""Shared beginnings for models with a mask of their own, which know whole sequences one after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from safe_align.layout import Layout


def write_out(model: nn.Module) -> None:
    """Have the body of a `transformers` model read each stretch after all that it goes on from, and return its own."""
    body: Any = model.base_model
    body.register_forward_pre_hook(_expand, with_kwargs=True)
    body.register_forward_hook(_contract, with_kwargs=True)


def _expand(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    layout = kwargs.get('layout')
    if not isinstance(layout, Layout) or not layout.shares:
        return args, kwargs
    return args, kwargs | {name: kwargs[name][:, layout.keys] for name in ('input_ids', 'position_ids')}


def _contract(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    layout = kwargs.get('layout')
    if isinstance(layout, Layout) and layout.shares:
        ends = layout.key_offsets[1:].tolist()
        own = torch.cat([torch.arange(end - n, end) for end, n in zip(ends, layout.lengths, strict=True)])
        output.last_hidden_state = output.last_hidden_state[:, own.to(layout.keys.device)]
    return output
