"""The scale of scores that a reward or cost model hands on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from safe_align.datasets.packing import pack
from safe_align.values.scoring import Moments, ScoreLoss


def test_the_moments_of_scores_pass_over_what_is_not_finite():
    moments = Moments('reward', None)
    moments.see(torch.tensor([1.0, float('nan'), 3.0]), torch.tensor([float('inf'), 5.0]))
    assert moments.normalizer().mean == 3.0
    assert moments.normalizer().std == pytest.approx((8 / 3) ** 0.5)
    exponential = Moments('cost', 0.5)
    for values in ([2.0], [float('nan')], [4.0]):
        exponential.see(torch.tensor(values))
        exponential.state()  # a step has ended
    assert exponential.normalizer().mean == pytest.approx((2 * 0.25 + 4 * 0.5) / 0.75)


def test_the_moments_pass_over_rows_that_only_fill_up_a_processs_share():
    class Engine:
        module = nn.Module()

        def __call__(self, tokens, positions, layout, where):
            return tokens[0, where].float()

    def pair(first: int, second: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.array([9, end]), np.array([False, True])) for end in (first, second)]

    moments = Moments('reward', None)
    function = ScoreLoss(lambda first, second, *_: (first - second, {}), moments, token_wise=False, normalize=False)
    weights = {'weight': np.array([1.0, 0.0])}
    loss, per, _ = function(Engine(), pack([*pair(1, 3), *pair(100, 200)], weights))
    assert (float(loss), per) == (-2.0, 'rows')
    assert moments.normalizer().mean == 2.0
    Engine.module.eval()
    function(Engine(), pack(pair(50, 60)))
    assert torch.equal(moments.sums, torch.tensor([2.0, 4.0, 10.0], dtype=torch.float64))


@pytest.mark.parametrize('momentum', [None, 0.5])
def test_micro_batches_change_neither_the_moments_nor_the_scale_that_a_loss_sees(momentum):
    class Engine:
        module = nn.Module()

        def __call__(self, tokens, positions, layout, where):
            return tokens[0, where].float()

    def rows(*pairs: tuple[int, int]):
        weights = {'weight': np.ones(len(pairs), np.float32)}
        return pack([(np.array([9, end]), np.array([False, True])) for pair in pairs for end in pair], weights)

    def trained(*steps):
        moments, seen = Moments('reward', momentum), []
        function = ScoreLoss(lambda first, *_: (first, {}), moments, token_wise=False, normalize=True)
        for step in steps:
            function.whole(Engine(), [*step])
            seen.append(sum(float(function(Engine(), one)[0]) for one in step))
        return seen, moments.normalizer()

    one = trained([rows((1, 3), (8, 2))], [rows((5, 4), (7, 6))])
    two = trained([rows((1, 3)), rows((8, 2))], [rows((5, 4)), rows((7, 6))])
    assert one[0] == pytest.approx(two[0])
    assert (one[1].mean, one[1].std) == pytest.approx((two[1].mean, two[1].std))
