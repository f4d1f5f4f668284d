"""The head that a new score model starts from."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit
from transformers import AutoModel

from safe_align.datasets.mixture import build
from safe_align.datasets.packing import Batches, collate
from safe_align.engine import Engine, OptimizerOptions, Placement
from safe_align.logger import Logger
from safe_align.models.loading import load_tokenizer
from safe_align.models.score import load_score_model
from safe_align.templates import Template
from safe_align.values import losses
from safe_align.values.head import PAIRS, fit_head

ADAMW = OptimizerOptions(1e-3, 0.0, 'constant', 0.0, 1.0, 1)


@pytest.fixture(scope='module')
def fitted(tiny, starter, tmp_path_factory):
    """An engine with a fitted cost head, and the data, of which each pair is a row."""
    tokenizer = load_tokenizer(str(tiny), '--x')
    data = build([f'jsonl::{starter / "train.jsonl"}'], 'safety_preference', Template(tokenizer), 256, seed=0)
    engine = Engine(load_score_model(str(tiny), 'cost', '--x', tokenizer, fresh=True), Placement(), ADAMW)
    batches = Batches(data, 16, 512, seed=3, rank=1, world_size=2)  # what another process holds is read all the same

    def loss(safer, unsafer, batch, pairs):
        return losses.ranking_loss(unsafer, safer) + losses.sign_loss(safer, batch.fields['is_safer_safe'][pairs]), {}

    assert not engine.module.model.score.weight.any()
    with closing(Logger(tmp_path_factory.mktemp('log'), 'cost', 'none')) as logger:
        fit_head(engine, batches, loss, logger)
    return engine, data


def _states(tiny, data, rows) -> np.ndarray:
    """The last states of both responses of these pairs, one sequence at a time: (N, 2, hidden) in float64."""
    body = AutoModel.from_pretrained(tiny).eval()
    flat = []
    for row in rows:
        batch = collate(data, [row])
        for n in range(2):
            with torch.no_grad():
                flat.append(body(input_ids=batch.tokens[:, batch.places(n)]).last_hidden_state[0, -1].double().numpy())
    return np.stack(flat).reshape(len(rows), 2, -1)


def test_the_head_is_the_most_probable_one(fitted, tiny):
    engine, data = fitted
    rows = np.random.default_rng([3, 0]).permutation(len(data))[:PAIRS]
    states = _states(tiny, data, rows)
    flat = states.reshape(-1, states.shape[-1])
    precision = np.square(flat - flat.mean(0)).sum(1).mean()
    fields = collate(data, [int(row) for row in rows]).fields
    weights, sign = fields['weight'].double().numpy(), 1 - 2 * fields['is_safer_safe'].double().numpy()

    def posterior(w):
        safer, margin = states[:, 0] @ w, (states[:, 1] - states[:, 0]) @ w
        value = precision / 2 * w @ w + (weights * (np.logaddexp(0, -margin) + np.logaddexp(0, -sign * safer))).sum()
        slope = -(weights * expit(-margin)) @ (states[:, 1] - states[:, 0])
        slope -= (weights * sign * expit(-sign * safer)) @ states[:, 0]
        return value, precision * w + slope

    best = minimize(posterior, np.zeros(flat.shape[1]), jac=True, method='BFGS', options={'gtol': 1e-6})
    ours = engine.module.model.score.weight.detach()[0].double().numpy()
    np.testing.assert_allclose(ours, best.x, rtol=0, atol=2e-4 * np.abs(best.x).max())
    assert posterior(ours)[0] == pytest.approx(best.fun, rel=1e-6)
    assert best.fun < 0.9 * posterior(np.zeros_like(ours))[0]  # there was something to find


def test_scores_start_on_the_scale_of_a_log_odds(fitted):
    engine, data = fitted
    batch = collate(data, range(64))
    scores = engine(batch.tokens, batch.positions, batch.layout, batch.ends)
    assert 0.05 < scores.std().item() < 3
