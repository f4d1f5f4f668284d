"""The training loop: what a step is divided by, what is skipped, when things happen, how it ends."""

from __future__ import annotations

import json
import math
import os
import signal

import pytest
import torch
from torch import nn
from toys import ROWS, SIZE, ToyAlgorithm, ToyBatches, toy_engine
from transformers import get_scheduler

from safe_align.config import UserError
from safe_align.engine import Engine, OptimizerOptions, Placement
from safe_align.handoff import Run
from safe_align.logger import Logger
from safe_align.loop import MAX_SKIPPED, Loss, Round, Schedule, Sum, evaluate, take_step, train


@pytest.fixture
def run(tmp_path):
    return Run('toy', tmp_path, {}, {}, Logger(tmp_path, 'toy'))


@pytest.fixture
def lines(tmp_path):
    """`lines('train/loss')` is that metric by step, as it was written."""

    def of(name: str) -> dict[int, float | None]:
        rows = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
        return {row['step']: row[name] for row in rows if name in row}

    return of


@pytest.mark.parametrize('split', [(10,), (9, 1), (3, 3, 4), (1,) * 10])
def test_a_step_is_divided_by_the_rows_of_all_its_micro_batches(split):
    engine, whole = toy_engine(max_grad_norm=0), ToyBatches().step(0)[0]
    error = engine(whole.inputs)[:, 0] - whole.targets
    (gradient,) = torch.autograd.grad(error.square().mean(), [engine.module.weight], retain_graph=True)
    seen = []
    engine.optimizer.register_step_pre_hook(lambda *_: seen.append(engine.module.weight.grad.clone()))
    metrics, finite = take_step(ToyAlgorithm(engine), ToyBatches(split=split).step(0))
    assert finite
    torch.testing.assert_close(seen[0], gradient)
    assert metrics['train/loss'] == pytest.approx(float(error.detach().square().mean()))


def test_units_of_one_engine_are_each_divided_by_their_own_count():
    engine = toy_engine(max_grad_norm=0)
    before = engine.module.bias.detach().clone()

    class Two(ToyAlgorithm):
        def update(self, micro):
            bias = self.engine.module.bias.sum()
            losses = [Loss(self.engine, 6 * bias, 'rows'), Loss(self.engine, 8 * bias, 'tokens')]
            yield losses, {'halves': Sum(torch.tensor(3.0), 'tokens'), 'nothing': Sum(0.0, 'images')}

    class Counted:
        rows = (1, 2)
        counts = {'rows': 2.0, 'tokens': torch.tensor(4.0), 'images': 0.0}

    gradients = []
    engine.optimizer.register_step_pre_hook(lambda *_: gradients.append(float(engine.module.bias.grad)))
    metrics, _ = take_step(Two(engine), [Counted(), Counted()])
    assert gradients == [6 * 2 / 4 + 8 * 2 / 8]
    assert metrics['train/halves'] == 3 * 2 / 8
    assert math.isnan(metrics['train/nothing'])
    assert engine.module.bias.item() < before.item()


def test_engines_step_apart_and_their_metrics_carry_their_roles():
    first, second = toy_engine(lr=0.1), toy_engine(lr=0.2)
    algorithm = ToyAlgorithm(first)
    algorithm.engines = {'actor': first, 'critic': second}
    metrics, _ = take_step(algorithm, ToyBatches().step(0))
    assert metrics['train/actor_lr'] == 0.1
    assert 'train/critic_lr' not in metrics  # it had no loss
    assert (first.steps, second.steps) == (1, 0)


def test_a_step_that_is_not_finite_moves_nothing_and_is_counted(run, lines):
    engine = toy_engine()
    train(ToyAlgorithm(engine), ToyBatches(bad=(21,)), run, Schedule())
    assert list(lines('train/skipped').values()) == [0, 0, 1, 0, 0, 0]
    assert lines('train/loss')[3] is None
    assert lines('train/grad_norm')[3] is None
    assert (engine.steps, engine.updates) == (6, 5)
    model, expected = nn.Linear(SIZE, 1), toy_engine()
    model.load_state_dict(expected.module.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0)
    for number in (0, 1, 3, 4, 5):
        whole = ToyBatches().step(number)[0]
        (model(whole.inputs)[:, 0] - whole.targets).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]['lr'] = engine.schedule(number)
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(engine.module.weight, model.weight)


def test_a_run_that_never_took_a_step_does_not_end_well(run):
    with pytest.raises(UserError, match=r'step 2: .*not finite for 2 steps in a row; rows of the last: \['):
        train(ToyAlgorithm(toy_engine()), ToyBatches(steps=2, bad=tuple(range(20))), run, Schedule())


def test_several_in_a_row_end_the_run_with_the_rows(run, lines):
    bad = tuple(range(20, 50))
    with pytest.raises(UserError, match=r'step 5: .*3 steps in a row; rows of the last: \[40, 41, .*--bf16 False'):
        train(ToyAlgorithm(toy_engine()), ToyBatches(bad=bad), run, Schedule())


def test_fewer_in_a_row_do_not(run, lines):
    train(ToyAlgorithm(toy_engine()), ToyBatches(bad=(0, 10, 30, 40)), run, Schedule())
    assert sum(lines('train/skipped').values()) == 4 > MAX_SKIPPED


@pytest.mark.parametrize(
    'name', ['linear', 'cosine', 'cosine_with_restarts', 'polynomial', 'constant', 'constant_with_warmup']
)
@pytest.mark.parametrize('ratio', [0.0, 0.25])
def test_learning_rates_are_those_of_transformers(name, ratio, run, lines):
    engine = toy_engine(total_steps=12, lr_scheduler_type=name, lr_warmup_ratio=ratio)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = get_scheduler(name, optimizer, round(12 * ratio), 12)
    train(ToyAlgorithm(engine), ToyBatches(), run, Schedule(epochs=2))
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert list(lines('train/lr').values()) == pytest.approx(expected)


def test_matrices_decay_and_vectors_do_not():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    model[1].weight.requires_grad_(False)
    options = OptimizerOptions(0.1, 0.5, 'constant', 0.0, 1.0, 1)
    decays = {id(p): group['weight_decay'] for group in options.adamw(model).param_groups for p in group['params']}
    assert decays == {id(model[0].weight): 0.5, id(model[1].bias): 0, id(model[2].weight): 0, id(model[2].bias): 0}


@pytest.mark.parametrize(('lr', 'end'), [(1e-3, 1e-7), (1e-7, 1e-8), (0.0, 0.0)])
def test_a_polynomial_schedule_may_begin_below_the_end_that_it_usually_has(lr, end):
    schedule = OptimizerOptions(lr, 0.0, 'polynomial', 0.0, 1.0, 4).schedule()
    assert (schedule(0), schedule(4)) == pytest.approx((lr, end))


@pytest.mark.parametrize(('limit', 'moved'), [(0.5, 0.5), (100.0, 4.0), (0, 4.0)])
def test_gradients_are_clipped_to_the_norm_given_and_0_is_no_limit(limit, moved):
    model = nn.Linear(1, 1, bias=False)
    engine = Engine(model, Placement(), OptimizerOptions(1.0, 0.0, 'constant', 0.0, limit, 1))
    engine.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.item()
    engine.backward(4 * model.weight.sum(), last=True)
    assert engine.step() == 4.0
    assert before - model.weight.item() == pytest.approx(moved, rel=1e-5)


def test_a_norm_of_many_numbers_keeps_its_digits():
    model = nn.Linear(1000, 2000, bias=False)
    engine = Engine(model, Placement(), OptimizerOptions(0.0, 0.0, 'constant', 0.0, 1.0, 1))
    engine.backward((model.weight * torch.ones_like(model.weight)).sum(), last=True)
    assert engine.step() == pytest.approx(2e6**0.5, rel=1e-6)


def test_evaluation_is_a_mean_over_all_rows_and_learns_nothing():
    engine = toy_engine()
    ragged = ToyBatches(3, split=(7, 1, 2))
    errors = torch.cat(
        [(engine(micro.inputs)[:, 0] - micro.targets).square() for micros in ragged.epoch() for micro in micros]
    )
    assert evaluate(ToyAlgorithm(engine), ragged) == {'eval/loss': pytest.approx(float(errors.detach().mean()))}
    assert len(errors) == 3 * ROWS
    assert engine.steps == 0
    assert engine.module.weight.grad is None


@pytest.mark.parametrize(('interval', 'expected'), [(None, [0, 6, 12]), (4, [0, 4, 8, 12]), (5, [0, 5, 10])])
def test_evaluations_come_at_the_start_and_at_their_interval_or_each_epochs_end(interval, expected, run, lines):
    train(ToyAlgorithm(toy_engine(12)), ToyBatches(), run, Schedule(2, eval_interval=interval), ToyBatches(1))
    assert list(lines('eval/loss')) == expected
    assert lines('train/epoch')[12] == 2.0


def test_a_round_that_makes_no_step_is_not_looked_at_again(run):
    class Idle(ToyAlgorithm):
        def collect(self, number, batch):
            return Round([] if number in (2, 3) else [batch], {}, 0.0)

    train(Idle(toy_engine()), ToyBatches(), run, Schedule(eval_interval=2), ToyBatches(1))
    rows = [json.loads(line) for line in run.logger.path.read_text().splitlines()]
    assert [row['step'] for row in rows if 'eval/loss' in row] == [0, 2, 4]


def test_the_newest_two_checkpoints_are_kept(run, tmp_path):
    train(ToyAlgorithm(toy_engine()), ToyBatches(7), run, Schedule(save_interval=2))
    assert {path.name for path in (tmp_path / 'checkpoints').iterdir()} == {'step-4', 'step-6'}


class Told(ToyAlgorithm):
    """Is told to end while it works on the third step, so many times."""

    def __init__(self, engine: Engine, signum: int, times: int = 1) -> None:
        super().__init__(engine, noise=0.1)
        self.signum, self.times = signum, times

    def update(self, micro):
        if self.engine.steps == 2:
            for _ in range(self.times):
                os.kill(os.getpid(), self.signum)
        return super().update(micro)


@pytest.mark.parametrize(('signum', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_step_end_saves_and_exits_and_the_next_start_goes_on(signum, code, run, lines, tmp_path):
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as end:
        train(Told(toy_engine(), signum), ToyBatches(), run, Schedule())
    assert end.value.code == code
    assert signal.getsignal(signum) == before
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['step-3']
    engine, undisturbed = toy_engine(), toy_engine()
    torch.manual_seed(7)  # the checkpoint knows better
    train(ToyAlgorithm(engine, noise=0.1), ToyBatches(), run, Schedule())
    losses = lines('train/loss')
    (tmp_path / 'other').mkdir()
    torch.manual_seed(0)
    nn.Linear(SIZE, 1)  # as `toy_engine` drew
    train(
        ToyAlgorithm(undisturbed, noise=0.1), ToyBatches(),
        Run('toy', tmp_path / 'other', {}, {}, Logger(tmp_path / 'other', 'toy')), Schedule(),
    )  # fmt: skip
    assert torch.equal(engine.module.weight, undisturbed.module.weight)
    assert (tmp_path / 'metrics.jsonl').read_bytes() == (tmp_path / 'other/metrics.jsonl').read_bytes()
    assert list(losses) == [1, 2, 3, 4, 5, 6]


def test_a_second_signal_ends_at_once(run, tmp_path):
    with pytest.raises(SystemExit) as end:
        train(Told(toy_engine(), signal.SIGTERM, times=2), ToyBatches(), run, Schedule())
    assert end.value.code == 143
    assert not (tmp_path / 'checkpoints').exists()
