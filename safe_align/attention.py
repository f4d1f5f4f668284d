"""Attention within the sequences of a flat row of tokens: no pad in any linear layer, no T x T mask.

`transformers` looks attention up by name; `NAME` is ours. It reads a `Layout` that the caller passes to the model's
forward as `layout=`, and knows from it where each sequence starts. On CUDA in half precision the work is a varlen
kernel. Elsewhere sequences of similar length are gathered into rectangles: attention is causal, so a pad on the right
is never attended to and needs no mask, and its own output is never read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import AttentionInterface

if TYPE_CHECKING:
    from collections.abc import Sequence


NAME = 'safe_align'
SHORT = 256  # up to this length, attention in bfloat16 on a CPU takes whole products
SCORES = 1 << 19  # of them at a time, so that they stay in a core's cache
SLACK = 1.15  # a rectangle may be this many times longer than its shortest sequence


@dataclass(frozen=True)
class Layout:
    """Where the sequences of a flat row of tokens lie, and the rectangles that hold them."""

    offsets: Tensor  # (N + 1,) int32, on the device
    longest: int
    rectangles: list[tuple[int, int]] = field(repr=False)  # (rows, columns) of each
    gather: Tensor = field(repr=False)  # (sum of rows x columns,) flat position of each cell
    restore: Tensor = field(repr=False)  # (T,) cell of each flat position

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Layout:
        """The layout of sequences of these lengths, one after the other."""
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        order = sorted(range(len(lengths)), key=lambda n: lengths[n])
        rectangles, cells = [], []
        for rows in _similar(order, lengths):
            columns = lengths[rows[-1]]
            steps = torch.arange(columns)
            starts, last = offsets[rows], torch.tensor([lengths[n] - 1 for n in rows])
            cells.append((starts[:, None] + torch.minimum(steps, last[:, None])).flatten())
            rectangles.append((len(rows), columns))
        gather = torch.cat(cells) if cells else torch.zeros(0, dtype=torch.long)
        restore = torch.empty(int(offsets[-1]), dtype=torch.long)
        # Cells of a row run left to right and pads repeat its last token, so writing backwards leaves the real cell.
        restore[gather.flip(0)] = torch.arange(len(gather)).flip(0)
        return cls(offsets.to(torch.int32), max(lengths, default=0), rectangles, gather, restore)

    def to(self, device: torch.device | str) -> Layout:
        """The same on `device`."""
        moved = (tensor.to(device, non_blocking=True) for tensor in (self.offsets, self.gather, self.restore))
        offsets, gather, restore = moved
        return Layout(offsets, self.longest, self.rectangles, gather, restore)


def _similar(order: list[int], lengths: Sequence[int]) -> list[list[int]]:
    """Runs of a length-sorted order in which no sequence is much shorter than the longest."""
    runs: list[list[int]] = []
    for n in order:
        if runs and lengths[n] <= max(lengths[runs[-1][0]] * SLACK, lengths[runs[-1][0]] + 8):
            runs[-1].append(n)
        else:
            runs.append([n])
    return runs


class _Gather(torch.autograd.Function):
    """rows[gather], whose gradient is grad[restore]: a pad's gradient is zero, so nothing needs adding up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gather: Tensor, restore: Tensor) -> Tensor:
        ctx.save_for_backward(gather, restore)
        return rows.index_select(0, gather)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        _, restore = ctx.saved_tensors
        return grads[0].index_select(0, restore), None, None


class _Restore(torch.autograd.Function):
    """cells[restore]: pads are dropped, and get no gradient."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, restore: Tensor) -> Tensor:
        ctx.save_for_backward(restore)
        ctx.num_cells = len(cells)
        return cells.index_select(0, restore)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (restore,) = ctx.saved_tensors
        cells = grads[0].new_zeros(ctx.num_cells, *grads[0].shape[1:])
        cells.index_copy_(0, restore, grads[0])
        return cells, None


class _Whole(torch.autograd.Function):
    """Causal attention by whole T x T products: (B, T, H, D), (B, T, G, D) twice -> (B, T, H, D).

    A flash kernel saves memory traffic that short sequences do not have, and its small tiles cost it three quarters of
    the processor's speed. A group's query heads are rows of one product.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        shape, groups = query.shape, key.shape[2]
        q, k, v = (_by_group(x, groups) for x in (query, key, value))
        length = shape[1]
        ahead = torch.ones(length, length, dtype=torch.bool).triu_(1)
        scores = torch.bmm(q, k.mT).float().mul_(scale)
        scores.view(len(q), -1, length, length).masked_fill_(ahead, -torch.inf)
        probs = scores.softmax(-1).to(q.dtype)
        ctx.save_for_backward(q, k, v, probs)
        ctx.scale, ctx.shape = scale, shape
        return _by_position(torch.bmm(probs, v), shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, probs = ctx.saved_tensors
        shape, groups = ctx.shape, len(k) // ctx.shape[0]
        out = _by_group(grad, groups)
        of_probs = torch.bmm(out, v.mT).float()
        of_scores = of_probs.sub_((of_probs * probs).sum(-1, keepdim=True)).mul_(probs).mul_(ctx.scale).to(q.dtype)
        narrow = (*shape[:2], groups, shape[-1])
        return (
            _by_position(torch.bmm(of_scores, k), shape),
            _by_position(torch.bmm(of_scores.mT, q), narrow),
            _by_position(torch.bmm(probs.mT, out), narrow),
            None,
        )


def _by_group(rows: Tensor, groups: int) -> Tensor:
    """(B, T, groups x S, D) -> (B x groups, S x T, D)."""
    return rows.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3).flatten(0, 1)


def _by_position(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The way back: (B x groups, S x T, D) -> shape (B, T, groups x S, D)."""
    batch, length = shape[:2]
    return rows.view(batch, -1, length, shape[-1]).transpose(1, 2)


def _rectangles(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float | None, p: float) -> Tensor:
    """(T, H, D), (T, G, D), (T, G, D) -> (T, H, D)."""
    gathered: list[Tensor] = [_Gather.apply(rows, layout.gather, layout.restore) for rows in (query, key, value)]
    sizes = [rows * columns for rows, columns in layout.rectangles]
    outputs = []
    for shape, *cells in zip(layout.rectangles, *(one.split(sizes) for one in gathered), strict=True):
        q, k, v = (one.unflatten(0, shape) for one in cells)
        if shape[1] <= SHORT and p == 0 and q.dtype == torch.bfloat16 and not q.is_cuda:
            some = max(1, SCORES // (q.shape[2] * shape[1] ** 2))
            factor = q.shape[-1] ** -0.5 if scale is None else scale
            parts = (one.split(some) for one in (q, k, v))
            out = torch.cat([_Whole.apply(*part, factor) for part in zip(*parts, strict=True)])
        else:
            q, k, v = (one.transpose(1, 2) for one in (q, k, v))
            out = F.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=scale, dropout_p=p, enable_gqa=q.shape[1] != k.shape[1]
            ).transpose(1, 2)
        outputs.append(out.flatten(0, 1))
    return _Restore.apply(torch.cat(outputs), layout.restore)


@dataclass(frozen=True)
class Decoding:
    """One new token a row, against a cache of which each row has filled its own share."""

    seen: Tensor  # (rows, columns) bool


def _one_token(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float | None) -> Tensor:
    """(rows, H, 1, D), (rows, G, columns, D) twice -> (rows, 1, H, D); heads of a group are rows of one product."""
    rows, heads, _, width = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    mask = seen[:, None, None].expand(-1, 1, grouped.shape[2], -1)
    out = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale)
    return out.reshape(rows, 1, heads, -1)


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
        return _one_token(query, key, value, layout.seen, scaling), None
    assert layout is not None, 'a model with this attention is called with layout='
    # Rotary embedding leaves float32 under autocast, which only the value says the type of.
    q, k, v = (rows[0].transpose(0, 1).to(value.dtype) for rows in (query, key, value))
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and dropout == 0:
        from torch.nn.attention.varlen import varlen_attn

        out: Any = varlen_attn(
            q, k, v, layout.offsets, layout.offsets, layout.longest, layout.longest,
            scale=scaling, window_size=(-1, 0), enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
    else:
        out = _rectangles(q, k, v, layout, scaling, dropout)
    return out.unsqueeze(0), None


def register() -> None:
    """Make the attention known to `transformers`; there is no mask under its name, so none is built."""
    AttentionInterface.register(NAME, attention)
