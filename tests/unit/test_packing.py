"""Every row is learnt once an epoch, in micro-batches of a bounded size, as many on each process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_align.datasets.mixture import Mixture
from safe_align.datasets.packing import Batches, collate, pack, split_by_tokens, stretch
from safe_align.datasets.tokenized import Tokenized

LENGTHS = st.lists(st.integers(2, 30), min_size=1, max_size=40)
PLANS = st.fixed_dictionaries({
    'batch_size': st.integers(1, 7),
    'budget': st.integers(1, 90),
    'seed': st.integers(0, 5),
    'world_size': st.integers(1, 4),
    'shuffle': st.booleans(),
})  # fmt: skip


def _part(lengths: list[int], per_row: int = 1, first: int = 0) -> Tokenized:
    """Rows whose sequences have these lengths; each token is the number of its row, the last one is the response."""
    rows = len(lengths) // per_row
    offsets = np.cumsum([0, *lengths])
    is_response = np.zeros(offsets[-1], bool)
    is_response[offsets[1:] - 1] = True
    return Tokenized(
        tokens=np.repeat(first + np.arange(len(lengths)) // per_row, lengths).astype(np.int32),
        is_response=is_response,
        offsets=offsets,
        hashes=np.arange(rows, dtype=np.uint64),
        cut=np.zeros(rows, bool),
        fields={'weight': np.linspace(0.5, 1.5, rows, dtype=np.float32)},
        turns=np.zeros(0, np.uint8),
        meta={},
    )


def _mixture(lengths: list[int], per_row: int = 1) -> Mixture:
    part = _part(lengths[: len(lengths) // per_row * per_row], per_row)
    return Mixture([part], np.stack([np.zeros(len(part), np.int64), np.arange(len(part))], 1), [])


def _ranks(data: Mixture, plan: dict) -> list[Batches]:
    return [Batches(data, rank=rank, **plan) for rank in range(plan['world_size'])]


def _is_filler(packed) -> bool:
    return bool((packed.fields['weight'] == 0).all())


def test_a_packed_batch_by_hand():
    # sequences 7 8 9 and 5 6, of which 9 and 5 6 are responses
    batch = pack([(np.array([7, 8, 9]), np.array([0, 0, 1])), (np.array([5, 6]), np.array([1, 1]))])
    assert batch.tokens.tolist() == [[7, 8, 9, 5, 6]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.layout.offsets.tolist() == [0, 3, 5]
    assert batch.response.tolist() == [2, 3, 4]
    assert batch.segments.tolist() == [0, 1, 1]
    assert batch.targets.tolist() == [9, 5, 6]
    assert batch.num_sequences == 2
    assert {name: float(count) for name, count in batch.counts.items()} == {'rows': 2, 'tokens': 3}


def test_collate_puts_both_sequences_of_a_pair_together_from_every_part():
    first, second = _part([2, 3, 4, 2], per_row=2), _part([5, 2], per_row=2, first=10)
    data = Mixture([first, second], np.array([[1, 0], [0, 0], [0, 1]]), [])
    batch = collate(data, [2, 0], weights=[2.0, 1.0])
    assert batch.tokens.tolist() == [[1] * 6 + [10] * 7]
    assert batch.layout.offsets.tolist() == [0, 4, 6, 11, 13]
    assert batch.fields['weight'].tolist() == [3.0, 0.5]  # 1.5 times 2, 0.5 times 1
    assert batch.weights.tolist() == [3.0, 3.0, 0.5, 0.5]
    # one response token a sequence: 3 + 3 + .5 + .5
    assert {name: float(count) for name, count in batch.counts.items()} == {'rows': 3.5, 'tokens': 7}
    assert batch.rows == [2, 0]


@settings(deadline=None, max_examples=100)
@given(LENGTHS, PLANS, st.sampled_from([1, 2]))
def test_every_row_comes_once_an_epoch(lengths, plan, per_row):
    data = _mixture(lengths * per_row, per_row)
    ranks = _ranks(data, plan)
    for epoch in range(2):
        seen = []
        for step in range(epoch * ranks[0].steps_per_epoch, (epoch + 1) * ranks[0].steps_per_epoch):
            micros = [micro for batches in ranks for micro in batches.step(step) if not _is_filler(micro)]
            rows = [row for micro in micros for row in micro.rows]
            assert sorted(rows) == sorted(ranks[0].rows(step).tolist())
            assert len(rows) <= plan['batch_size'] * plan['world_size']
            seen += rows
        assert sorted(seen) == list(range(len(data)))


@settings(deadline=None, max_examples=100)
@given(LENGTHS, PLANS)
def test_processes_have_as_many_micro_batches_within_the_budget(lengths, plan):
    data = _mixture(lengths)
    ranks = _ranks(data, plan)
    for step in range(ranks[0].steps_per_epoch):
        shares = [batches.step(step) for batches in ranks]
        assert len({len(share) for share in shares}) == 1
        for micro in (micro for share in shares for micro in share):
            assert micro.num_sequences == 1 or micro.tokens.numel() <= plan['budget']


@settings(deadline=None, max_examples=60)
@given(LENGTHS, PLANS)
def test_fillers_weigh_nothing_and_the_rest_weighs_what_it_should(lengths, plan):
    data = _mixture(lengths)
    ranks = _ranks(data, plan)
    for step in range(ranks[0].steps_per_epoch):
        micros = [micro for batches in ranks for micro in batches.step(step)]
        weights = data.parts[0].fields['weight'][ranks[0].rows(step)]
        for name in ('rows', 'tokens'):  # each row has one response token
            total = sum(float(micro.counts[name]) for micro in micros)
            np.testing.assert_allclose(total, weights.sum(), rtol=1e-5)
        for micro in filter(_is_filler, micros):
            assert micro.tokens.numel()
            assert float(micro.weights.sum()) == 0


@settings(deadline=None, max_examples=40)
@given(LENGTHS, PLANS, st.integers(0, 20))
def test_a_step_can_be_sought_and_is_the_same_on_a_new_object(lengths, plan, step):
    data = _mixture(lengths)
    walked = Batches(data, rank=0, **plan)
    for before in range(step):
        walked.rows(before)
    for one, other in zip(walked.step(step), Batches(data, rank=0, **plan).step(step), strict=True):
        assert one.rows == other.rows
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.fields['weight'], other.fields['weight'])


def test_epochs_have_orders_of_their_own_that_the_seed_fixes():
    data = _mixture([3] * 30)
    orders = [[Batches(data, 30, 90, seed=seed).rows(step).tolist() for step in range(3)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert len({tuple(order) for order in orders[0]}) == 3
    assert Batches(data, 30, 90, shuffle=False).rows(2).tolist() == list(range(30))


def test_processes_get_about_as_many_tokens():
    # lengths 2 to 41 for 2 processes: dealt out by length, back and forth, 20 rows each
    data = _mixture(list(range(2, 42)))
    totals = [
        sum(micro.tokens.numel() for micro in Batches(data, 20, 10_000, rank=rank, world_size=2).step(0))
        for rank in range(2)
    ]
    assert totals == [430, 430]  # (2 + ... + 41) / 2 = 43 * 40 / 2 / 2


def test_steps_per_epoch_counts_the_last_short_one():
    assert Batches(_mixture([2] * 7), 2, 99).steps_per_epoch == 4
    assert Batches(_mixture([2] * 7), 2, 99, world_size=2).steps_per_epoch == 2
    assert [len(micros) for micros in Batches(_mixture([2] * 7), 2, 99).epoch()] == [1, 1, 1, 1]


@settings(deadline=None, max_examples=60)
@given(LENGTHS, PLANS)
def test_with_as_many_rows_as_processes_in_each_step_every_process_has_one_of_its_own(lengths, plan):
    data = _mixture(lengths)
    ranks = [replace(batches, least=plan['world_size']) for batches in _ranks(data, plan)]
    kept = []
    for step in range(ranks[0].steps_per_epoch):
        for batches in ranks:
            mine = [row for micro in batches.step(step) if not _is_filler(micro) for row in micro.rows]
            assert mine
            kept += mine
    assert len(kept) == len(set(kept))
    assert len(data) - len(kept) < plan['world_size']


@given(st.lists(st.integers(1, 20), min_size=1, max_size=20), st.integers(1, 60))
def test_runs_by_length_are_as_full_as_the_next_sequence_allows(lengths, budget):
    runs = split_by_tokens(lengths, budget)
    flat = [n for run in runs for n in run]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[n] for n in flat] == sorted(lengths)
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        total = sum(lengths[n] for n in run)
        assert total <= budget or len(run) == 1
        assert following is None or total + lengths[following[0]] > budget


def test_a_budget_beyond_all_numbers_of_numpy_takes_everything_at_once():
    assert split_by_tokens(np.array([3, 2]), 10**30) == [[1, 0]]


def test_stretching_halves_the_largest_run_and_adds_empty_ones_last():
    assert stretch([[1], [2, 3, 4, 5]], 3) == [[1], [2, 3], [4, 5]]
    assert stretch([[1], [2]], 4) == [[1], [2], [], []]
    assert stretch([], 1) == [[]]
