"""The built-in decoder: packed prefill, a cache written in place, rows that leave when they end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from safe_align.attention import Decoding
from safe_align.datasets.packing import pack, split_by_tokens
from safe_align.sampling import Drawing, Drawn, Response, Sampling

PREFILL = 8192  # tokens of a packed prefill
BLOCK = 32  # columns that the cache grows by
SHRINK = 0.85  # rows are packed together when no more than this share of them goes on


class Slots(Cache):
    """Keys and values of rows in place, (rows, heads, columns, D) of each layer, grown as columns are needed."""

    def __init__(self, rows: int) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self.states: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values of each layer
        self.columns = 0
        self.where: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))  # rows and columns to write
        self.source: Tensor | None = None  # while prefilling, which of the new states goes where

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new states; while decoding, return all states of the rows, else the new ones."""
        new = (key_states.to(value_states.dtype), value_states)  # rotary embedding leaves float32 under autocast
        old = self.states.get(layer_idx, (None, None))
        keys, values = self._grown(new[0], old[0]), self._grown(new[1], old[1])
        self.states[layer_idx] = keys, values
        for store, states in ((keys, new[0]), (values, new[1])):
            flat = states[:, :, 0] if self.source is None else states[0].transpose(0, 1)[self.source]
            store[self.where[0], :, self.where[1]] = flat
        return (keys, values) if self.source is None else new

    def _grown(self, states: Tensor, old: Tensor | None) -> Tensor:
        """With as many columns as there are now, without gaps: products of a slice are slower than a copy."""
        have = 0 if old is None else old.shape[2]
        room = states.new_zeros(self.rows, states.shape[1], self.columns - have, states.shape[3])
        return room if old is None else torch.cat([old, room], 2) if room.shape[2] else old

    def keep(self, rows: Tensor) -> None:
        """Let go of all other rows."""
        self.rows = len(rows)
        self.states = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self.states.items()}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Unused: positions are given."""
        return 0


class Stream:
    """What one model makes of the rows: its cache, and its logits."""

    def __init__(self, model: Any, pairs: Sequence[tuple[int, int]], longest: int) -> None:
        self.model, self.pairs, self.longest = model, pairs, longest
        self.device = next(model.parameters()).device
        self.slots = Slots(len(pairs))

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Fill the rows' columns, each prompt once; the logits of each row's first token: (rows, V)."""
        rows_of: dict[int, list[int]] = {}
        for row, (prompt, _) in enumerate(self.pairs):
            rows_of.setdefault(prompt, []).append(row)
        unique = list(rows_of)
        logits: Tensor | None = None
        for run in split_by_tokens([len(prompts[prompt]) for prompt in unique], PREFILL):
            chosen = [unique[n] for n in run]
            batch = pack([(np.array(prompts[prompt]), np.zeros(len(prompts[prompt]))) for prompt in chosen])
            rows, columns, source = [], [], []
            for n, prompt in enumerate(chosen):
                places = batch.places(n)
                for row in rows_of[prompt]:
                    rows.append(torch.full_like(places, row))
                    columns.append(torch.arange(len(places)))
                    source.append(places)
            self.slots.columns = _whole_blocks(self.longest)
            self.slots.where = (torch.cat(rows).to(self.device), torch.cat(columns).to(self.device))
            self.slots.source = torch.cat(source).to(self.device)
            batch = batch.to(self.device)
            last = self._forward(batch.tokens, batch.positions, batch.layout, batch.ends)[0]
            logits = last.new_empty(len(self.pairs), last.shape[-1]) if logits is None else logits
            for n, prompt in enumerate(chosen):
                logits[rows_of[prompt]] = last[n]
        assert logits is not None
        self.slots.source = None
        return logits

    def step(self, tokens: Tensor, columns: Tensor, bias: Tensor) -> Tensor:
        """Take in a token a row, at these columns: the logits of the next, (rows, V)."""
        self.slots.where = (torch.arange(len(tokens), device=self.device), columns)
        self.slots.columns = bias.shape[-1]
        return self._forward(tokens[:, None], columns[:, None], Decoding(bias[:, None]), 1)[:, 0]

    def _forward(self, tokens: Tensor, positions: Tensor, layout: Any, keep: Any) -> Tensor:
        return self.model(
            input_ids=tokens, position_ids=positions, layout=layout, past_key_values=self.slots, use_cache=True,
            logits_to_keep=keep,
        ).logits  # fmt: skip


class Decoder:
    """Rows that are decoded together. A row's prompt starts at column 0, so rows differ in the column they write."""

    def __init__(
        self, models: Sequence[Any], prompts: Sequence[Sequence[int]], pairs: list[tuple[int, int]], draws: np.ndarray,
        drawing: Drawing, sampling: Sampling, stop_ids: Sequence[int],
    ) -> None:  # fmt: skip
        self.pairs, self.drawing = pairs, drawing
        lengths = [len(prompts[prompt]) for prompt, _ in pairs]
        self.longest = max(lengths)
        self.streams = [Stream(model, pairs, self.longest) for model in models]
        self.device = self.streams[0].device
        self.uniforms = torch.from_numpy(draws).to(self.device)
        self.stops = torch.tensor(list(stop_ids), device=self.device)
        self.columns = torch.tensor(lengths, device=self.device)
        rooms = [sampling.room(length) for length in lengths]
        self.steps = max(rooms)
        self.logits = [stream.prefill(prompts) for stream in self.streams]
        self.tokens = torch.zeros(len(pairs), self.steps, dtype=torch.long, device=self.device)
        self.log_probs = torch.zeros(len(pairs), self.steps, device=self.device)
        self.lengths = torch.tensor(rooms, device=self.device)
        self.ended = torch.zeros(len(pairs), dtype=torch.bool, device=self.device)  # by a stop token

    def responses(self, drawn: Drawn) -> list[Response]:
        """Decode until every row has ended or is full."""
        rows = torch.arange(len(self.pairs), device=self.device)  # those in the cache
        uniforms, columns, logits = self.uniforms, self.columns, self.logits
        for step in range(self.steps):
            tokens, log_probs = self.drawing(logits, uniforms[:, step], rows)
            self.tokens[rows, step] = tokens
            self.log_probs[rows, step] = log_probs
            drawn(tokens)
            stops = torch.isin(tokens, self.stops) & (step < self.lengths[rows])
            self.ended[rows] |= stops
            self.lengths[rows[stops]] = step + 1
            going = step + 1 < self.lengths[rows]
            kept = going.nonzero()[:, 0]
            if not len(kept):
                break
            if len(kept) <= SHRINK * len(rows):
                for stream in self.streams:
                    stream.slots.keep(kept)
                rows, uniforms, columns, tokens, going = (x[kept] for x in (rows, uniforms, columns, tokens, going))
            ahead = torch.arange(_whole_blocks(self.longest + step + 1), device=self.device) > columns[:, None]
            bias = torch.zeros(ahead.shape, dtype=torch.bfloat16, device=self.device).masked_fill_(ahead, -torch.inf)
            logits = [stream.step(tokens, columns, bias) for stream in self.streams]
            columns = columns + going  # a row that has ended stays where it is until it leaves
        return self._collect()

    def _collect(self) -> list[Response]:
        lengths, ended = self.lengths.tolist(), self.ended.tolist()
        tokens, log_probs = self.tokens.tolist(), self.log_probs.tolist()
        return [
            Response(*pair, tokens[n][: lengths[n]], log_probs[n][: lengths[n]], ended[n])
            for n, pair in enumerate(self.pairs)
        ]


def _whole_blocks(columns: int) -> int:
    return -(-columns // BLOCK) * BLOCK
