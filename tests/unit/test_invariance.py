"""What a step learns does not depend on how its rows were split into micro-batches, nor on their order."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from safe_align.algorithms import supervised
from safe_align.algorithms.preference import PreferenceConfig
from safe_align.algorithms.preference import main as preference
from safe_align.algorithms.supervised import Supervised
from safe_align.datasets.mixture import Mixture, build
from safe_align.datasets.packing import Batches, Packed, collate
from safe_align.engine import Engine, OptimizerOptions, Placement
from safe_align.finetune.__main__ import FinetuneConfig
from safe_align.finetune.__main__ import main as finetune
from safe_align.logger import Logger
from safe_align.loop import take_step
from safe_align.models.loading import load_tokenizer
from safe_align.templates import Template
from safe_align.values import scoring
from safe_align.values.cost import CostConfig
from safe_align.values.cost import main as cost
from safe_align.values.reward import RewardConfig
from safe_align.values.reward import main as reward

ROWS = 12
BY_IMPORTANCE = 'dpo by importance'
BY_WPO = ('simpo', 'kto', 'raft', 'aot', 'bco', 'ppo_offline')
TASKS = {
    'sft': (finetune, FinetuneConfig, {}),
    'reward': (reward, RewardConfig, {'regularization': 0.01}),
    'reward token-wise': (reward, RewardConfig, {'loss_type': 'token-wise', 'regularization': 0.01}),
    'cost': (cost, CostConfig, {'regularization': 0.01}),
    'cost token-wise': (cost, CostConfig, {'loss_type': 'token-wise'}),
    'dpo': (preference, PreferenceConfig, {'nll_coeff': 0.1}),
    'simpo': (preference, PreferenceConfig, {'loss': 'simpo'}),
    'kto': (preference, PreferenceConfig, {'loss': 'kto'}),
    'bco': (preference, PreferenceConfig, {'loss': 'bco'}),
    'ppo_offline': (preference, PreferenceConfig, {'loss': 'ppo_offline'}),
    'pop': (preference, PreferenceConfig, {'loss': 'pop'}),
    'aot': (preference, PreferenceConfig, {'loss': 'aot'}),
    BY_IMPORTANCE: (
        preference,
        PreferenceConfig,
        {'reweighter': 'importance', 'reweighter_options': ['clip=1e9']},
    ),
    **{f'{loss} by wpo': (preference, PreferenceConfig, {'loss': loss, 'reweighter': 'wpo'}) for loss in BY_WPO},
}


class Recording(Engine):
    """An engine that keeps the gradient of a step and leaves the weights alone."""

    def step(self) -> float:
        self.gradient = torch.cat([p.grad.flatten() for p in self.module.parameters() if p.grad is not None])
        self.optimizer.zero_grad()
        return float(self.gradient.norm())


class Stage:
    """A stage's own loss on its own rows of the starter set."""

    def __init__(self, name: str, model: str, data: str, tmp_path, monkeypatch) -> None:
        main, config_class, options = TASKS[name]
        self.name = name
        self.eps = 5e-6 if 'token-wise' in name else 1e-6  # hundreds of scores that cancel leave more of their rounding
        tasks = []
        for module in (supervised, scoring):
            monkeypatch.setattr(module, 'run_supervised', lambda config, task: tasks.append(task))
        config = config_class(output_dir='o', model_name_or_path=model, train_datasets=[data], **options)
        main(config)
        tokenizer = load_tokenizer(model, '--model_name_or_path')
        self.data = build(config.train_datasets, tasks[0].rows, Template(tokenizer), 160, seed=0)
        with closing(Logger(tmp_path, name, 'none')) as logger:
            self.data = tasks[0].prepare(self.data, Placement(), logger)
        if name == BY_IMPORTANCE:
            self.eps = 1e-4  # hundreds of nats are rounded before the difference of two becomes a factor
            sides = ('chosen', 'rejected')
            drawn = {f'sampled_{side}_logps': self.data.column(f'reference_{side}_logps') for side in sides}
            self.data = self.data.with_fields(drawn)
        torch.manual_seed(0)
        options = OptimizerOptions(1e-3, 0.0, 'constant', 0.0, 1.0, 1)
        model = tasks[0].load(config, tokenizer)
        if main is preference:
            with torch.no_grad():  # away from the reference, where all log-ratios are 0
                torch._foreach_mul_(list(model.parameters()), 1.001 if name == BY_IMPORTANCE else 1.05)
        engine = Recording(model, Placement(), options)
        self.algorithm = Supervised(engine, tasks[0].function)
        self.start = self.algorithm.state()

    def step(self, micros: list[Packed]) -> tuple[torch.Tensor, dict[str, float]]:
        self.algorithm.load_state(self.start)
        (micros,) = self.algorithm.collect(0, micros).steps
        metrics, finite = take_step(self.algorithm, micros)
        assert finite
        return self.algorithm.engine.gradient, metrics

    def micros(self, data: Mixture, budget: int, world_size: int = 1) -> list[Packed]:
        """Of one step; those of several processes one after the other."""
        plans = [
            Batches(data, ROWS // world_size, budget, rank=rank, world_size=world_size, shuffle=False)
            for rank in range(world_size)
        ]
        return [micro for plan in plans for micro in plan.step(0)]


@pytest.fixture(scope='module')
def data(starter, tmp_path_factory) -> str:
    """Rows of the starter set, some of which count more than others."""
    lines = (starter / 'train.jsonl').read_text(encoding='utf-8').splitlines()
    rows = [{**json.loads(line), 'weight': (1, 2, 0.5)[n % 3]} for n, line in enumerate(lines[:ROWS])]
    path = tmp_path_factory.mktemp('data') / 'rows.jsonl'
    path.write_text('\n'.join(map(json.dumps, rows)))
    return f'jsonl:1:{path}'


@pytest.fixture(scope='module')
def pairs_of_pairs(data) -> str:
    """The same rows, the weaker pair being the answers' beginnings."""
    path = Path(data.removeprefix('jsonl:1:'))
    rows = []
    for row in map(json.loads, path.read_text(encoding='utf-8').splitlines()):
        answers = (row['response_0'], row['response_1'])
        both = (*answers, *(answer[:40] for answer in answers))
        named = dict(zip(('chosen', 'rejected', 'weak_chosen', 'weak_rejected'), both, strict=True))
        rows.append({'prompt': row['prompt'], 'weight': row['weight'], **named})
    path = path.with_name('pairs_of_pairs.jsonl')
    path.write_text('\n'.join(map(json.dumps, rows)))
    return f'jsonl:1:{path}'


@pytest.fixture(params=TASKS)
def stage(request, family, data, pairs_of_pairs, tmp_path, monkeypatch) -> Stage:
    given = pairs_of_pairs if request.param == 'pop' else data
    return Stage(request.param, str(family('llama')), given, tmp_path, monkeypatch)


def _assert_same(stage: Stage, micros: list[Packed], expected) -> None:
    (gradient, metrics), (exact, exact_metrics) = stage.step(micros), expected
    torch.testing.assert_close(gradient, exact, rtol=0, atol=stage.eps * float(exact.abs().max()))
    assert metrics.keys() == exact_metrics.keys()
    for name, value in exact_metrics.items():
        assert metrics[name] == pytest.approx(value, rel=max(1e-5, stage.eps), abs=1e-6), name


def test_micro_batches_change_neither_gradient_nor_metrics(stage):
    (whole,) = stage.micros(stage.data, 10**6)
    assert whole.fields['weight'].sum() == 14.0  # 12 rows of weights 1, 2 and 1/2
    expected = stage.step([whole])
    assert expected[0].abs().max() > 1e-3
    for budget, world_size in ((1, 1), (600, 1), (400, 2), (1, 4)):
        micros = stage.micros(stage.data, budget, world_size)
        assert len(micros) > 2
        _assert_same(stage, micros, expected)


def test_any_order_and_any_split_give_the_same(stage):
    expected = stage.step([collate(stage.data, range(ROWS))])
    draw = np.random.default_rng(0)
    for num_cuts in (1, 3):
        order = draw.permutation(ROWS)
        cuts = np.sort(draw.choice(np.arange(1, ROWS), num_cuts, replace=False))
        parts = [part.tolist() for part in np.split(order, cuts)]
        _assert_same(stage, [collate(stage.data, part) for part in parts], expected)
        shuffled = stage.data.take(order)
        _assert_same(stage, stage.micros(shuffled, 1000), expected)


def test_a_filler_row_changes_nothing(stage):
    rows = collate(stage.data, range(ROWS))
    filler = collate(stage.data, [3], weights=[0.0])
    _assert_same(stage, [rows, filler], stage.step([rows]))


def test_a_row_of_weight_2_is_that_row_twice(stage):
    if stage.name.startswith('aot'):
        pytest.skip('twice the row is two places in the order')
    twice = collate(stage.data, [0, 1, 1])
    heavy = collate(stage.data, [0, 1], weights=[1.0, 2.0])
    _assert_same(stage, [heavy], stage.step([twice]))
