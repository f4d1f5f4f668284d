"""A flat row with shared beginnings holds every sequence, and its rectangles show each token what it may see."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_align.datasets.packing import pack
from safe_align.datasets.prefixes import LEAST, share
from safe_align.layout import LARGE, Layout

FOREST = st.lists(st.tuples(st.integers(1, 40), st.integers(-1, 12)), min_size=1, max_size=16).map(
    lambda drawn: ([length for length, _ in drawn], [min(parent, n - 1) for n, (_, parent) in enumerate(drawn)])
)
IDS = st.lists(st.lists(st.integers(0, 1), max_size=60), min_size=1, max_size=12)  # of two ids, so much is alike


def _paths(lengths: list[int], parents: list[int]) -> list[list[int]]:
    """Flat positions of each stretch after all that it goes on from."""
    paths: list[list[int]] = []
    for n, (length, parent) in enumerate(zip(lengths, parents, strict=True)):
        start = sum(lengths[:n])
        paths.append([*(paths[parent] if parent >= 0 else []), *range(start, start + length)])
    return paths


@settings(deadline=None, max_examples=100)
@given(FOREST)
def test_each_token_sees_what_its_stretch_goes_on_from_and_its_own_up_to_itself(forest):
    layout, paths = Layout.of(*forest), _paths(*forest)
    offsets = layout.key_offsets.tolist()
    assert [layout.keys[a:b].tolist() for a, b in pairwise(offsets)] == paths
    assert layout.longest == (max(forest[0]), max(map(len, paths)))
    assert layout.shares == any(parent >= 0 for parent in forest[1])
    seen: dict[int, list[int]] = {}
    query = key = 0
    cells = layout.cells
    for rectangle in cells.rectangles:
        assert rectangle.rows == 1 or rectangle.rows * rectangle.queries * rectangle.bias.shape[2] <= LARGE
        for row in range(rectangle.rows):
            bias = rectangle.bias[row % len(rectangle.bias)]
            keys = cells.keys[key : key + bias.shape[1]]
            for position, sees in zip(cells.queries[query : query + len(bias)].tolist(), bias == 0, strict=True):
                seen.setdefault(position, keys[sees].tolist())  # pads come after the token that they repeat
            query, key = query + bias.shape[0], key + bias.shape[1]
    assert (query, key) == (len(cells.queries), len(cells.keys))
    assert seen == {position: path[: n + 1] for path in paths for n, position in enumerate(path)}


@settings(deadline=None, max_examples=100)
@given(FOREST)
def test_cells_and_positions_are_each_others_way_back(forest):
    layout = Layout.of(*forest)
    cells, total = layout.cells, sum(forest[0])
    assert torch.equal(cells.queries[cells.own_query], torch.arange(total))
    assert torch.equal(cells.keys[cells.own_key], torch.arange(total))
    assert torch.equal(cells.keys[cells.again], cells.shared[cells.of])
    # a key cell is a position's own, or holds it again, or is a pad that nobody sees
    real = [*cells.own_key.tolist(), *cells.again.tolist()]
    assert len(set(real)) == len(real) == sum(map(len, _paths(*forest)))


@settings(deadline=None, max_examples=100)
@given(IDS)
def test_stretches_write_every_beginning_and_save_what_can_be_saved(ids):
    heads = [np.array(one, np.int64) for one in ids]
    stretches, parents = share(heads)
    users = [0] * len(stretches)
    for head, parent in zip(heads, parents, strict=True):
        written: list[int] = []
        chain = []
        while parent >= 0:
            chain.append(parent)
            parent = stretches[parent].parent
        for n in reversed(chain):
            users[n] += 1
            assert stretches[n].start == len(written)
            written += stretches[n].tokens.tolist()
        assert head[: len(written)].tolist() == written
    for stretch, count in zip(stretches, users, strict=True):
        assert stretch.parent < len(stretches)
        assert len(stretch.tokens) * (count - 1) >= LEAST
    _assert_little_is_left(heads, stretches, parents)


def _assert_little_is_left(heads, stretches, parents) -> None:
    """No two sequences that go on from the same stretch could still share enough."""
    depths = [stretches[n].start + len(stretches[n].tokens) if n >= 0 else 0 for n in parents]
    for n, (head, parent, depth) in enumerate(zip(heads, parents, depths, strict=True)):
        for other, other_parent in zip(heads[:n], parents, strict=False):
            if parent == other_parent:
                alike = np.cumprod(head[depth:][: len(other) - depth] == other[depth:][: len(head) - depth])
                assert alike.sum() < LEAST


def test_a_packed_pair_by_hand():
    """Prompt 1 to 10 for both, then 20 21 or 30; the prompt's last token stays with each."""
    prompt = list(range(1, 11))
    batch = pack([(np.array([*prompt, 20, 21]), np.arange(12) > 9), (np.array([*prompt, 30]), np.arange(11) > 9)])
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 21, 10, 30]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 9, 10]]
    assert batch.layout.offsets.tolist() == [0, 9, 12, 14]
    assert batch.layout.depths == [0, 9, 9]
    assert batch.ends.tolist() == [11, 13]
    assert batch.response.tolist() == [10, 11, 13]
    assert batch.tokens[0, batch.response - 1].tolist() == [10, 20, 10]
    assert batch.segments.tolist() == [0, 0, 1]
    assert (batch.num_sequences, batch.num_tokens) == (2, 23)


def test_what_is_not_worth_a_stretch_is_not_shared():
    few = [np.arange(LEAST - 1), np.arange(LEAST - 1)]
    assert share(few) == ([], [-1, -1])
    stretches, parents = share([*few, few[0]])  # three times: 2 x 7 tokens saved
    assert [len(one.tokens) for one in stretches] == [LEAST - 1]
    assert parents == [0, 0, 0]
