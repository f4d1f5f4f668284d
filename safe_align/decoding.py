"""The built-in decoder: packed prefill, a cache written in place, rows that leave when they end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from safe_align import attention
from safe_align.datasets.packing import split_by_tokens
from safe_align.layout import Layout
from safe_align.sampling import Progress, Response, Sampling, draw, unseen

PREFILL = 8192  # tokens of a packed prefill
SHRINK = 0.85  # rows are packed together when no more than this share of them goes on


class Slots(Cache):
    """Keys and values of rows in place, (layers, rows, heads, columns, D); made when the first layer shows a shape."""

    def __init__(self, num_layers: int, rows: int, columns: int) -> None:
        super().__init__(layers=[])
        self.shape = (num_layers, rows, columns)
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.where: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))  # rows and columns to write
        self.source: Tensor | None = None  # which of the new states goes where; None: in order
        self.reach: int | None = None  # columns read while decoding; None while prefilling

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new states; while decoding, return all states of the rows, else the new ones."""
        if self.keys is None or self.values is None:
            layers, rows, columns = self.shape
            heads = key_states.shape[1]
            self.keys = key_states.new_zeros(layers, rows, heads, columns, key_states.shape[-1])
            self.values = value_states.new_zeros(layers, rows, heads, columns, value_states.shape[-1])
        where = self.where
        for store, states in ((self.keys, key_states), (self.values, value_states)):
            flat = states[0].transpose(0, 1) if self.reach is None else states[:, :, 0]
            store[layer_idx][where[0], :, where[1]] = flat if self.source is None else flat[self.source]
        if self.reach is None:
            return key_states, value_states
        return self.keys[layer_idx][:, :, : self.reach], self.values[layer_idx][:, :, : self.reach]

    def keep(self, rows: Tensor) -> None:
        """Let go of all other rows."""
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Unused: positions are given."""
        return 0


class Decoder:
    """Rows that are decoded together. A row's prompt starts at column 0, so rows differ in the column they write."""

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], pairs: list[tuple[int, int]], draws: np.ndarray,
        sampling: Sampling, stop_ids: Sequence[int],
    ) -> None:  # fmt: skip
        self.model, self.pairs, self.sampling = model, pairs, sampling
        self.device = next(model.parameters()).device
        self.uniforms = torch.from_numpy(draws).to(self.device)
        self.stops = torch.tensor(list(stop_ids), device=self.device)
        lengths = [len(prompts[prompt]) for prompt, _ in pairs]
        self.columns = torch.tensor(lengths, device=self.device)
        self.longest = max(lengths)
        rooms = [sampling.room(length) for length in lengths]
        self.steps = max(rooms)
        widest = max(map(int.__add__, lengths, rooms))
        self.slots = Slots(model.config.num_hidden_layers, len(pairs), widest)
        self.logits = self._prefill(prompts)
        self.tokens = torch.zeros(len(pairs), self.steps, dtype=torch.long, device=self.device)
        self.log_probs = torch.zeros(len(pairs), self.steps, device=self.device)
        self.lengths = torch.tensor(rooms, device=self.device)
        self.ended = torch.zeros(len(pairs), dtype=torch.bool, device=self.device)  # by a stop token

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Fill the rows' columns, each prompt once; the logits of each row's first token: (rows, V)."""
        rows_of: dict[int, list[int]] = {}
        for row, (prompt, _) in enumerate(self.pairs):
            rows_of.setdefault(prompt, []).append(row)
        unique = list(rows_of)
        logits: Tensor | None = None
        for run in split_by_tokens([len(prompts[prompt]) for prompt in unique], PREFILL):
            chosen = [unique[n] for n in run]
            layout = Layout.of([len(prompts[prompt]) for prompt in chosen]).to(self.device)
            tokens = torch.tensor([[token for prompt in chosen for token in prompts[prompt]]], device=self.device)
            starts = layout.offsets.tolist()
            rows, columns, source = [], [], []
            for n, prompt in enumerate(chosen):
                steps = torch.arange(starts[n + 1] - starts[n])
                for row in rows_of[prompt]:
                    rows.append(torch.full_like(steps, row))
                    columns.append(steps)
                    source.append(starts[n] + steps)
            self.slots.where = (torch.cat(rows).to(self.device), torch.cat(columns).to(self.device))
            self.slots.source = torch.cat(source).to(self.device)
            positions = torch.cat([torch.arange(len(prompts[prompt])) for prompt in chosen]).to(self.device)
            last = self._forward(tokens, positions[None], layout, layout.offsets[1:].long() - 1)[0]
            logits = last.new_empty(len(self.pairs), last.shape[-1]) if logits is None else logits
            for n, prompt in enumerate(chosen):
                logits[rows_of[prompt]] = last[n]
        assert logits is not None
        self.slots.source = None
        return logits

    def _forward(self, tokens: Tensor, positions: Tensor, layout: Any, keep: Any) -> Tensor:
        return self.model(
            input_ids=tokens, position_ids=positions, layout=layout, past_key_values=self.slots, use_cache=True,
            logits_to_keep=keep,
        ).logits  # fmt: skip

    def responses(self, progress: Progress = unseen) -> list[Response]:
        """Decode until every row has ended or is full."""
        rows = torch.arange(len(self.pairs), device=self.device)  # those in the cache
        uniforms, columns, logits = self.uniforms, self.columns, self.logits
        for step in range(self.steps):
            tokens, log_probs = draw(logits, uniforms[:, step], self.sampling.temperature, self.sampling.top_p)
            self.tokens[rows, step] = tokens
            self.log_probs[rows, step] = log_probs
            progress(len(rows))
            stops = torch.isin(tokens, self.stops) & (step < self.lengths[rows])
            self.ended[rows] |= stops
            self.lengths[rows[stops]] = step + 1
            going = step + 1 < self.lengths[rows]
            kept = going.nonzero()[:, 0]
            if not len(kept):
                break
            if len(kept) <= SHRINK * len(rows):
                self.slots.keep(kept)
                rows, uniforms, columns, tokens, going = (x[kept] for x in (rows, uniforms, columns, tokens, going))
            self.slots.where = (torch.arange(len(rows), device=self.device), columns)
            self.slots.reach = min(self.longest + step + 1, self.slots.shape[2])
            seen = torch.arange(self.slots.reach, device=self.device) <= columns[:, None]
            logits = self._forward(tokens[:, None], columns[:, None], attention.Decoding(seen), 1)[:, 0]
            columns = columns + going  # a row that has ended stays where it is until it leaves
        return self._collect()

    def _collect(self) -> list[Response]:
        lengths, ended = self.lengths.tolist(), self.ended.tolist()
        tokens, log_probs = self.tokens.tolist(), self.log_probs.tolist()
        return [
            Response(*pair, tokens[n][: lengths[n]], log_probs[n][: lengths[n]], ended[n])
            for n, pair in enumerate(self.pairs)
        ]
