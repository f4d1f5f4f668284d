"""Attention within the sequences of a flat row of tokens: no pad in any linear layer, no T x T mask.

`transformers` looks attention up by name; `NAME` is ours. It reads a `Layout` that the caller passes to the model's
forward as `layout=`, and knows from it what each token sees. On CUDA in half precision the work is a varlen kernel.
Elsewhere stretches of similar length are gathered into rectangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import AttentionInterface

from safe_align.layout import Cells, Layout, Rectangle

NAME = 'safe_align'
SHORT = 256 * 256  # up to as many scores a row, attention in bfloat16 on a CPU takes whole products


class _Gather(torch.autograd.Function):
    """rows[where]; a position's gradient comes from the cell that is its own, and from those that read it again."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, cells: Cells, is_key: bool) -> Tensor:
        ctx.cells, ctx.is_key = cells, is_key
        return rows.index_select(0, cells.keys if is_key else cells.queries)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cells: Cells = ctx.cells
        flat = grad.index_select(0, cells.own_key if ctx.is_key else cells.own_query)
        if ctx.is_key and len(cells.shared):
            total = flat.index_select(0, cells.shared)
            total = total.to(torch.promote_types(total.dtype, torch.float32))  # many addends lose digits in bfloat16
            total.index_add_(0, cells.of, grad.index_select(0, cells.again).to(total.dtype))
            flat.index_copy_(0, cells.shared, total.to(flat.dtype))
        return flat, None, None


class _Restore(torch.autograd.Function):
    """cells[own]: pads are dropped, and get no gradient."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, own: Tensor) -> Tensor:
        ctx.save_for_backward(own)
        ctx.num_cells = len(cells)
        return cells.index_select(0, own)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (own,) = ctx.saved_tensors
        return grad.new_zeros(ctx.num_cells, *grad.shape[1:]).index_copy_(0, own, grad), None


class _Whole(torch.autograd.Function):
    """Attention by whole products: (B, Q, H, D), (B, K, G, D) twice, a bias of (B or 1, Q, K) -> (B, Q, H, D).

    A flash kernel saves memory traffic that short sequences do not have, and its small tiles cost it three quarters of
    the processor's speed. A group's query heads are rows of one product.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
        q, k, v = (_by_group(x, key.shape[2]) for x in (query, key, value))
        scores = torch.bmm(q.mul_(scale), k.mT)
        scores.view(len(query), -1, *bias.shape[1:]).add_(bias[:, None])
        probs = scores.softmax(-1)
        ctx.save_for_backward(q, k, v, probs)
        ctx.scale = scale
        return _by_position(torch.bmm(probs, v), *query.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, probs = ctx.saved_tensors
        rows, columns = grad.shape[:2]
        out = _by_group(grad, len(k) // rows)
        of_scores = torch._softmax_backward_data(torch.bmm(out, v.mT), probs, -1, probs.dtype)
        return (
            _by_position(torch.bmm(of_scores, k).mul_(ctx.scale), rows, columns),
            _by_position(torch.bmm(of_scores.mT, q), rows, k.shape[1]),
            _by_position(torch.bmm(probs.mT, out), rows, k.shape[1]),
            None,
            None,
        )


def _by_group(rows: Tensor, groups: int) -> Tensor:
    """A copy, (B, T, groups x S, D) -> (B x groups, S x T, D)."""
    by_head = rows.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4)
    return by_head.clone(memory_format=torch.contiguous_format).flatten(2, 3).flatten(0, 1)


def _by_position(rows: Tensor, batch: int, length: int) -> Tensor:
    """The way back: (batch x groups, S x length, D) -> (batch, length, groups x S, D)."""
    return rows.view(batch, -1, length, rows.shape[-1]).transpose(1, 2)


def _rectangles(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float | None, p: float) -> Tensor:
    """(T, H, D), (T, G, D), (T, G, D) -> (T, H, D)."""
    cells = layout.cells
    num_queries = [r.rows * r.queries for r in cells.rectangles]
    num_keys = [r.rows * (r.past + r.queries) for r in cells.rectangles]
    gathered: list[Tensor] = [_Gather.apply(rows, cells, n > 0) for n, rows in enumerate((query, key, value))]
    parts = (rows.split(sizes) for rows, sizes in zip(gathered, (num_queries, num_keys, num_keys), strict=True))
    outputs = []
    for rectangle, *qkv in zip(cells.rectangles, *parts, strict=True):
        q, k, v = (x.unflatten(0, (rectangle.rows, -1)) for x in qkv)
        products = rectangle.queries * k.shape[1] <= SHORT and p == 0
        if products and q.dtype == torch.bfloat16 and not q.is_cuda:
            out = _Whole.apply(q, k, v, rectangle.bias, q.shape[-1] ** -0.5 if scale is None else scale)
        else:
            out = _flash(q, k, v, rectangle, scale, p)
        outputs.append(out.flatten(0, 1))
    return _Restore.apply(torch.cat(outputs), cells.own_query)


def _flash(query: Tensor, key: Tensor, value: Tensor, rectangle: Rectangle, scale: float | None, p: float) -> Tensor:
    """The same by PyTorch's own attention, with dropout."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    bias = rectangle.bias[:, None].to(q.dtype) if rectangle.past else None
    out = F.scaled_dot_product_attention(
        q, k, v, bias, dropout_p=p, is_causal=bias is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out.transpose(1, 2)


@dataclass(frozen=True)
class Decoding:
    """One new token a row, against a cache of which each row has filled its own share."""

    bias: Tensor  # (rows, 1, columns) bfloat16, 0 for what it has filled and -inf elsewhere


def _one_token(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float | None) -> Tensor:
    """(rows, H, 1, D), (rows, G, columns, D) twice -> (rows, 1, H, D); heads of a group are rows of one product."""
    rows, heads, _, width = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    if query.dtype != torch.bfloat16 or query.is_cuda:
        out = F.scaled_dot_product_attention(grouped, key, value, attn_mask=bias[:, None].to(query.dtype), scale=scale)
        return out.reshape(rows, 1, heads, -1)
    q, k, v = (x.flatten(0, 1) for x in (grouped * (width**-0.5 if scale is None else scale), key, value))
    scores = torch.bmm(q, k.mT)
    scores.view(rows, heads, -1).add_(bias)
    return torch.bmm(scores.softmax(-1), v).view(rows, 1, heads, -1)


def attention(
    module: torch.nn.Module,
    query: Tensor,  # (1, H, T, D)
    key: Tensor,  # (1, G, T, D)
    value: Tensor,  # (1, G, T, D)
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: Layout | Decoding | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of `layout`: (1, H, T, D) -> (1, T, H, D)."""
    if isinstance(layout, Decoding):
        return _one_token(query.to(value.dtype), key, value, layout.bias, scaling), None
    assert layout is not None, 'a model with this attention is called with layout='
    # Rotary embedding leaves float32 under autocast, which only the value says the type of.
    q, k, v = (rows[0].transpose(0, 1).to(value.dtype) for rows in (query, key, value))
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and dropout == 0:
        from torch.nn.attention.varlen import varlen_attn

        if layout.shares:
            k, v = (rows.index_select(0, layout.keys) for rows in (k, v))
        out: Any = varlen_attn(
            q, k, v, layout.offsets, layout.key_offsets, *layout.longest,
            scale=scaling, window_size=(-1, 0), enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
    else:
        out = _rectangles(q, k, v, layout, scaling, dropout)
    return out.unsqueeze(0), None


def register() -> None:
    """Make the attention known to `transformers`; there is no mask under its name, so none is built."""
    AttentionInterface.register(NAME, attention)
