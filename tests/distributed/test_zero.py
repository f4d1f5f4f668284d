"""Two processes under DeepSpeed, and one, are the same run as one process without it: same metrics, same weights.

Adam divides a gradient by its own size, so a rounding error in one that is nearly zero moves a weight by a whole step.
Here its epsilon is 1e-2, which keeps Adam's memory and its counts in play and such weights still.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forks import ROOT, kill

pytest.importorskip('deepspeed')

from safetensors.torch import load_file

from safe_align.checkpoint import verify

SFT, COST = 'safe_align.finetune', 'safe_align.values.cost'
REWARD, PPO_LAG = 'safe_align.values.reward', 'safe_align.algorithms.ppo_lag'
PREFERENCE = 'safe_align.algorithms.preference'
GENTLE = """from functools import partialmethod
from safe_align.engine import OptimizerOptions
OptimizerOptions.adamw = partialmethod(OptimizerOptions.adamw, eps=1e-2)
"""
SPOILT = """from safe_align import distributed
from safe_align.engine import Engine
from safe_align.zero import ZeroEngine

def spoil(kind):
    backward = kind.backward
    spared = lambda engine: engine.steps != 2 or distributed.rank() < distributed.world_size() - 1
    kind.backward = lambda self, loss, last: backward(self, loss / spared(self), last)

spoil(Engine)
spoil(ZeroEngine)
"""  # the last process has no finite gradient at the third step
ROWS = 8  # of a step, on all processes
ONCE = ['--epochs', 1]  # where others see that a second goes on as it should
FEW = ['--micro_batch_tokens', 120]  # several micro-batches a step, not as many on each process


@pytest.fixture(scope='module')
def options(tmp_path_factory, starter, tiny):
    folder = tmp_path_factory.mktemp('data')
    (folder / 'gentle.py').write_text(GENTLE)
    (folder / 'spoilt.py').write_text(GENTLE + SPOILT)
    rows = (starter / 'train.jsonl').read_text(encoding='utf-8').splitlines(True)[:28]  # the last step is not full
    (folder / 'rows.jsonl').write_text(''.join(rows))

    def of(
        stage: str, directory: Path, *more, processes: int = 1, model: Path = tiny, plugin: str = 'gentle.py'
    ) -> list:
        return [
            stage, '--model_name_or_path', model, '--datasets', f'jsonl:1:{folder / "rows.jsonl"}', '--lr', 1e-2,
            '--max_length', 64, '--per_device_train_batch_size', ROWS // processes, '--epochs', 2, '--log_type', 'none',
            '--bf16', False, '--need_eval', '--eval_split_ratio', 0.15, '--plugin', folder / plugin,
            '--output_dir', directory, *more,
        ]  # fmt: skip

    return of


@pytest.fixture(scope='module')
def plain(stages, options, tmp_path_factory):
    """The directories of one process without DeepSpeed."""
    found = {}
    for stage in (SFT, COST):
        found[stage] = tmp_path_factory.mktemp('plain') / 'run'
        code, said = stages.run(*options(stage, found[stage]))
        assert code == 0, said
    return found


def finish(started: list) -> None:
    codes = [stage.wait() for stage in started]
    assert codes == [0] * len(started), '\n'.join(stage.said for stage in started)


def metrics_of(directory: Path) -> list[dict[str, float]]:
    lines = (directory / 'metrics.jsonl').read_text().splitlines()
    return [{name: -1.0 if value is None else value for name, value in json.loads(line).items()} for line in lines]


def assert_equal(one: Path, other: Path, start: Path, size: float = 1) -> None:
    """Metrics to 5e-6, and weights to 5e-7, some of float32's own roundings, where they changed by more than 1e-2.

    `size` is that of the numbers that a stage takes differences of.
    """
    lines = metrics_of(one), metrics_of(other)
    assert [line.keys() for line in lines[0]] == [line.keys() for line in lines[1]]
    for ours, theirs in zip(*lines, strict=True):
        for name, value in theirs.items():
            if abs(theirs.get(name.replace('accuracy', 'margin'), 1)) < 1e-4 and name.endswith('accuracy'):
                continue  # a policy that is its reference: which answer is ahead is a matter of rounding
            loose = name.endswith('explained_variance')  # made of differences of squares
            assert ours[name] == pytest.approx(value, rel=1e-4 if loose else 5e-6, abs=1e-6 * size), name
    weights, expected = load_file(one / 'model.safetensors'), load_file(other / 'model.safetensors')
    assert weights.keys() == expected.keys()
    before = load_file(start / 'model.safetensors')
    change = max((expected[name] - before[name]).abs().max() for name in expected.keys() & before.keys())
    assert change > 1e-2
    for name, value in weights.items():
        assert (value - expected[name]).abs().max() < (5e-7 if size == 1 else 5e-6), name
    records = [json.loads((directory / 'safe_align.json').read_text()) for directory in (one, other)]
    normalizers = [[record.get('normalizer', {}).get(name, 0.0) for name in ('mean', 'std')] for record in records]
    assert normalizers[0] == pytest.approx(normalizers[1], rel=1e-5)


@pytest.mark.parametrize(
    ('stage', 'more'),
    [
        (SFT, ['--zero_stage', 1]),
        (SFT, ['--zero_stage', 2, '--offload', 'optimizer']),
        (SFT, ['--zero_stage', 3]),
        (COST, ['--zero_stage', 2]),
        (COST, ['--zero_stage', 3, '--offload', 'all']),
    ],
    ids=lambda value: value.split('.')[-1] if isinstance(value, str) else '-'.join(map(str, value[1::2])),
)
def test_two_processes_are_one(stage, more, stages, options, plain, tiny, tmp_path):
    finish(stages.launch(2, *options(stage, tmp_path / 'run', *more, *FEW, processes=2)))
    assert_equal(tmp_path / 'run', plain[stage], tiny)


@pytest.mark.parametrize(
    ('zero', 'more'),
    [
        (3, ['--loss', 'dpo']),
        (2, ['--loss', 'kto', '--ema_decay', 0.5]),
        (3, ['--loss', 'ppo_offline', '--ema_decay', 0.5, '--reweighter', 'wpo']),
    ],
    ids=['dpo', 'kto', 'ppo_offline'],
)
def test_preferences_on_two_processes_are_those_on_one(zero, more, stages, options, tiny, tmp_path):
    more = [*more, *ONCE]
    code, said = stages.run(*options(PREFERENCE, tmp_path / 'plain', *more))
    assert code == 0, said
    finish(stages.launch(2, *options(PREFERENCE, tmp_path / 'run', '--zero_stage', zero, *more, *FEW, processes=2)))
    assert_equal(tmp_path / 'run', tmp_path / 'plain', tiny, size=300)  # nats of a response
    if '--ema_decay' in more:
        one, other = (load_file(tmp_path / name / 'averaged/model.safetensors') for name in ('run', 'plain'))
        assert max((one[name] - other[name]).abs().max() for name in one) < 5e-6


def test_two_processes_train_the_adapter_of_one(stages, options, tmp_path):
    pytest.importorskip('peft')
    lora = ['--lora_r', 4, *ONCE]
    code, said = stages.run(*options(SFT, tmp_path / 'plain', *lora))
    assert code == 0, said
    finish(stages.launch(2, *options(SFT, tmp_path / 'run', *lora, '--zero_stage', 3, *FEW, processes=2)))
    ours, theirs = (load_file(tmp_path / name / 'adapter_model.safetensors') for name in ('run', 'plain'))
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max() for name in theirs) < 5e-7
    losses = ([line.get('train/loss', 0.0) for line in metrics_of(tmp_path / name)] for name in ('run', 'plain'))
    assert next(losses) == pytest.approx(next(losses), rel=5e-6)


@pytest.fixture(scope='module')
def actor(stages, options, plain, tiny, tmp_path_factory):
    """`actor(directory, *more)` is how PPO-Lag is called, with a step a round; of 14 prompts, the last round has 6."""
    reward = tmp_path_factory.mktemp('reward') / 'run'
    code, said = stages.run(*options(REWARD, reward))
    assert code == 0, said
    _, _, _, _, rows, *_ = options(SFT, reward)

    def of(directory: Path, *more, processes: int = 1) -> list:
        return [
            PPO_LAG, '--actor_model_name_or_path', tiny, '--reward_model_name_or_path', reward,
            '--cost_model_name_or_path', plain[COST], '--datasets', rows.replace('jsonl:1:', 'jsonl:14/-1:'),
            '--actor_lr', 1e-2, '--critic_lr', 1e-2, '--max_length', 64, '--max_new_tokens', 12, '--log_type', 'none',
            '--per_device_prompt_batch_size', ROWS // processes, '--per_device_train_batch_size', ROWS // processes,
            '--bf16', False, '--epochs', 2, '--ptx_datasets', rows, '--ptx_coeff', 1,
            '--plugin', Path(rows.removeprefix('jsonl:1:')).with_name('gentle.py'), '--output_dir', directory, *more,
        ]  # fmt: skip

    return of


@pytest.fixture(scope='module')
def plain_actor(stages, actor, tmp_path_factory):
    """Of one process without DeepSpeed."""
    directory = tmp_path_factory.mktemp('plain_actor') / 'run'
    code, said = stages.run(*actor(directory))
    assert code == 0, said
    return directory


@pytest.mark.parametrize('zero', [2, 3])
def test_ppo_lag_on_two_processes_is_that_on_one(zero, stages, actor, plain_actor, tiny, tmp_path):
    finish(stages.launch(2, *actor(tmp_path / 'run', '--zero_stage', zero, *FEW, processes=2)))
    assert_equal(tmp_path / 'run', plain_actor, tiny)


@pytest.mark.parametrize('zero', [0, 3])
def test_processes_with_unlike_numbers_of_responses_make_as_many_steps(zero, stages, actor, tmp_path):
    """7 prompts a round, 4 here and 3 there, in steps of 3: the second process has no responses for the second step."""
    sizes = ['--per_device_prompt_batch_size', 4, '--per_device_train_batch_size', 3, '--datasets']
    command = actor(tmp_path / 'run', '--zero_stage', zero, *sizes, processes=2)
    rows = command[command.index('--datasets') + 1].replace('14/-1', '7/-1')
    finish(stages.launch(2, *command, rows))
    assert sum('train/lambda' in line for line in metrics_of(tmp_path / 'run')) == 4


def test_fewer_prompts_than_processes_are_refused(stages, actor, tmp_path):
    command = actor(tmp_path / 'run', processes=2)
    rows = command[command.index('--datasets') + 1].replace('14/-1', '1/-1')
    started = stages.launch(2, *command, '--datasets', rows)
    assert [stage.wait() for stage in started] == [2, 2]
    assert '--train_datasets: 1 prompts cannot be shared out to 2 processes' in started[0].said + started[1].said
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('zero', [2, 3])
def test_one_process_under_deepspeed_is_one_without(zero, stages, options, plain, tiny, tmp_path):
    code, said = stages.run(*options(SFT, tmp_path / 'run', '--zero_stage', zero, *FEW))
    assert code == 0, said
    assert_equal(tmp_path / 'run', plain[SFT], tiny)


@pytest.mark.parametrize(
    'more', [['--zero_stage', 2], ['--zero_stage', 2, '--offload', 'optimizer'], ['--zero_stage', 3]]
)
def test_a_gradient_that_is_not_finite_on_one_process_is_skipped_on_all(more, stages, options, tiny, tmp_path):
    code, said = stages.run(*options(SFT, tmp_path / 'plain', plugin='spoilt.py'))
    assert code == 0, said
    finish(stages.launch(2, *options(SFT, tmp_path / 'run', *more, *FEW, processes=2, plugin='spoilt.py')))
    skipped = [line['train/skipped'] for line in metrics_of(tmp_path / 'run') if 'train/skipped' in line]
    assert skipped == [0, 0, 1, *[0] * (len(skipped) - 3)]
    assert_equal(tmp_path / 'run', tmp_path / 'plain', tiny)


def test_torchrun_told_to_end_saves_and_goes_on_to_the_same_bytes(stages, options, tmp_path):
    command = lambda name: options(SFT, tmp_path / name, '--zero_stage', 2, processes=2)  # noqa: E731
    launcher = subprocess.Popen(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', '-m',
         *map(str, command('run'))],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    metrics = tmp_path / 'run/metrics.jsonl'
    while launcher.poll() is None and not (metrics.exists() and metrics.read_text(encoding='utf-8')):
        time.sleep(0.02)  # a step that is done says that both processes listen
    launcher.send_signal(signal.SIGTERM)
    said, _ = launcher.communicate(timeout=60)
    (saved,) = (tmp_path / 'run/checkpoints').iterdir()
    assert f'told to end; saved at {saved.name.replace("-", " ")}' in said
    assert not (tmp_path / 'run/manifest.json').exists()
    finish(stages.launch(2, *command('run')))
    finish(stages.launch(2, *command('undisturbed')))
    assert_same_bytes(tmp_path / 'run', tmp_path / 'undisturbed')


def assert_same_bytes(one: Path, other: Path) -> None:
    for name in ('model.safetensors', 'metrics.jsonl'):
        assert verify(one)[name] == verify(other)[name]


@pytest.fixture
def killed(stages, options, tmp_path):
    """`killed(*more)` is a run on two processes that were killed while they saved step 5; its newest is step 4."""

    def run(*more, **changes) -> Path:
        directory = tmp_path / 'killed'
        command = options(SFT, directory, '--save_interval', 1, *more, processes=2, **changes)
        started = stages.launch(2, *command, dies_at=('.step-5.partial', 1))
        assert started[0].wait() == -signal.SIGKILL, started[0].said
        kill(started[1:])
        assert (directory / 'checkpoints/step-4').is_dir()
        return directory

    return run


def test_processes_killed_under_zero_3_go_on_to_the_same_bytes_with_sizes_that_two_does_not_divide(
    stages, options, killed, family, tmp_path
):
    odd = family('gpt2', n_embd=63, n_head=3)
    directory, more = killed('--zero_stage', 3, model=odd), ['--save_interval', 1, '--zero_stage', 3]
    finish(stages.launch(2, *options(SFT, directory, *more, processes=2, model=odd)))
    finish(stages.launch(2, *options(SFT, tmp_path / 'undisturbed', *more, processes=2, model=odd)))
    assert_same_bytes(directory, tmp_path / 'undisturbed')


def test_a_checkpoint_of_two_processes_goes_on_on_one_with_as_many_rows_a_step(
    stages, options, plain, killed, tiny, tmp_path
):
    directory = killed('--zero_stage', 3)
    command = options(SFT, directory, '--save_interval', 1)
    code, said = stages.run(*command, '--per_device_train_batch_size', ROWS // 2)
    assert code == 2
    assert '8 rows a step there, 4 here, on all processes together' in said
    code, said = stages.run(*command)
    assert code == 0, said
    assert 'goes on from step 4' in said
    assert_equal(directory, plain[SFT], tiny)


def test_a_checkpoint_of_one_process_goes_on_on_two(stages, options, plain, tiny, tmp_path):
    directory = tmp_path / 'run'
    stage = stages.start(*options(SFT, directory, '--save_interval', 1), dies_at=('.step-3.partial', 1))
    assert stage.wait() == -signal.SIGKILL, stage.said
    finish(stages.launch(2, *options(SFT, directory, '--save_interval', 1, '--zero_stage', 2, processes=2)))
    assert_equal(directory, plain[SFT], tiny)


def test_all_processes_leave_a_finished_or_refused_run_together_and_one_says_why(stages, options, plain, tmp_path):
    directory = shutil.copytree(plain[SFT], tmp_path / 'run')
    again = stages.launch(2, *options(SFT, directory, processes=2))
    assert [stage.wait() for stage in again] == [0, 0]
    assert 'holds this run, finished' in again[0].said + again[1].said
    refused = stages.launch(2, *options(SFT, directory, '--lr', 1, processes=2))
    assert [stage.wait() for stage in refused] == [2, 2]
    assert refused[0].said.count('error: ') == 1
    assert 'error' not in refused[1].said
    assert 'Traceback' not in refused[0].said + refused[1].said
