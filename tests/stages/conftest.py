"""Stages run once for all tests that look at what they leave, and stages that end with an error."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from forks import Forks

from safe_align import config

MARKER = 'marker-of-a-secret-5f3a9c'
COMMON = ('--log_type', 'none', '--bf16', False, '--max_length', 96)
TRAIN = ('--per_device_train_batch_size', 8, '--lr', 1e-3)
ACTOR = (
    '--max_new_tokens', 12, '--per_device_prompt_batch_size', 4, '--per_device_train_batch_size', 4,
    '--actor_lr', 1e-3, '--ptx_coeff', 1,
)  # fmt: skip
CONFIGS = {
    'finetune': 'FinetuneConfig', 'values.reward': 'RewardConfig', 'values.cost': 'CostConfig',
    'algorithms.preference': 'PreferenceConfig', 'algorithms.ppo': 'PPOConfig', 'algorithms.ppo_lag': 'PPOLagConfig',
    'algorithms.ppo_reward_shaping': 'RewardShapingConfig', 'algorithms.reinforce_ci_lag': 'ReinforceConfig',
    'evaluate.arena': 'ArenaConfig', 'evaluate.kl': 'KLConfig', 'evaluate.safety_test': 'SafetyTestConfig',
    'online.sample': 'SampleConfig', 'online.annotate': 'AnnotateConfig',
    'algorithms.online_dpo': 'OnlineDPOConfig', 'evaluate.bigbench': 'BigBenchConfig',
    'serve.cli': 'ChatConfig', 'serve.arena': 'DuelConfig',
    'evaluate.compare': 'CompareConfig',
    'evaluate.gpt4': 'Gpt4Config',
    'evaluate.reward': 'RewardEvaluationConfig', 'evaluate.cost': 'CostEvaluationConfig',
    'evaluate.report': 'ReportConfig',
}  # fmt: skip
MADE = {
    'config.json',
    'model.safetensors',
    'adapter_config.json',
    'adapter_model.safetensors',
    'safe_align.json',
    'manifest.json',
    'table.csv',
    'kl.csv',
    'summary.json',
    'certificate.json',
    'responses.jsonl',
    'feedback.jsonl',
    'results.json',
    'samples.jsonl',
    'comparisons.jsonl',
    'results.jsonl',
    'eval.jsonl',
    'scores.jsonl',
}


class Chain:
    """`chain / 'reward'` is the directory of the reward stage, `calls['reward']` how it was called."""

    def __init__(self, root: Path, tiny: Path, starter: Path) -> None:
        self.root, self.secret = root, MARKER
        train, test = (starter / f'{name}.jsonl' for name in ('train', 'test'))
        rows, prompts, held_out = f'jsonl:24/-1:{train}', f'jsonl:8/-1:{train}', f'jsonl:6/-1:{test}'
        tuned, reward, cost = self / 'finetune', self / 'reward', self / 'cost'
        score = ('--model_name_or_path', tuned, '--datasets', rows, *TRAIN, '--normalizer_type', 'RunningMeanStd')
        scorer = ('--reward_model_name_or_path', reward)
        actor = ('--actor_model_name_or_path', tuned, *scorer, '--datasets', prompts, '--ptx_datasets', rows, *ACTOR)
        learn = (*actor, '--critic_lr', 1e-3)
        constraint = ('--cost_model_name_or_path', cost)
        corners = ('--red_corner_model_name_or_path', tuned, '--blue_corner_model_name_or_path', self / 'ppo_lag')
        self.calls = {
            'finetune': ('finetune', '--model_name_or_path', tiny, '--datasets', rows, *TRAIN,
                         '--need_eval', '--eval_datasets', held_out),
            'reward': ('values.reward', *score),
            'cost': ('values.cost', *score),
            'preference': ('algorithms.preference', '--model_name_or_path', tuned, '--datasets', rows, *TRAIN,
                           '--need_eval', '--eval_datasets', held_out),
            'ppo': ('algorithms.ppo', *learn),
            'ppo_lag': ('algorithms.ppo_lag', *learn, *constraint, '--eval_datasets', held_out),
            'ppo_reward_shaping': ('algorithms.ppo_reward_shaping', *learn, *constraint),
            'reinforce_ci_lag': ('algorithms.reinforce_ci_lag', *actor, *constraint, '--rloo', True,
                                 '--num_samples_per_prompt', 2, '--eval_datasets', held_out),
            'arena': ('evaluate.arena', *corners, *scorer, *constraint, '--datasets', held_out, '--max_new_tokens', 12),
            'kl': ('evaluate.kl', '--model_name_or_path', self / 'ppo_lag', '--ref_model_name_or_path', tuned, *scorer,
                   '--datasets', held_out, '--max_new_tokens', 12),
            'safety_test': ('evaluate.safety_test', '--model_name_or_path', self / 'ppo_lag', *constraint, '--datasets',
                            held_out, '--max_new_tokens', 12, '--claim', 'mean_cost', '--range', -100, 100,
                            '--threshold', 90, '--samples_per_prompt', 2, '--ledger', self / 'ledger.jsonl'),
        }  # fmt: skip

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def run(self, forks: Forks, name: str, *more) -> tuple[int, str]:
        """Exit code and output of one stage."""
        module, *arguments = self.calls[name]
        options = (*arguments, *COMMON, '--output_dir', self / name, *more)
        return forks.run(f'safe_align.{module}', *options, SECRET_API_KEY=MARKER, WANDB_API_KEY=MARKER)


@contextlib.contextmanager
def one_at_a_time(path: Path):
    with path.open('w') as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope='session')
def chain(stages, tmp_path_factory, tiny, starter) -> Chain:
    """All stages run, each on the directories of those before; once, however many workers pytest has."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if os.environ.get('PYTEST_XDIST_WORKER') else root) / 'chain'
    root.mkdir(exist_ok=True)
    made = Chain(root, tiny, starter)
    with one_at_a_time(root / '.lock'):
        if not (root / '.done').exists():
            for name in made.calls:
                code, said = made.run(stages, name)
                assert code == 0, f'{name}:\n{said}'
                (root / f'{name}.log').write_text(said, encoding='utf-8')
            (root / '.done').touch()
    return made


@pytest.fixture(autouse=True)
def apart(no_plugins):
    """No test knows the plug-ins of another."""


@pytest.fixture
def ends(monkeypatch, capsys, tmp_path):
    """`ends('finetune', '--lr', 1)` is the exit code and stderr of `python -m safe_align.finetune --lr 1 ...`."""

    def run(stage: str, *arguments) -> tuple[int, str]:
        module = importlib.import_module(f'safe_align.{stage}' + '.__main__' * (stage == 'finetune'))
        where = () if '--output_dir' in arguments or stage.startswith('serve.') else ('--output_dir', tmp_path / 'out')
        monkeypatch.setattr(sys, 'argv', ['x', *map(str, (*arguments, *where))])
        monkeypatch.setattr(sys.modules['__main__'], '__spec__', SimpleNamespace(name=f'safe_align.{stage}'))
        capsys.readouterr()
        code = 0
        try:
            config.run(getattr(module, CONFIGS[stage]), module.main)
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def fails(ends, tmp_path):
    """`fails(stage, *arguments)` is the line that the stage ends with."""

    def run(stage: str, *arguments) -> str:
        code, said = ends(stage, *arguments)
        assert code == 2, said
        assert said.count('\n') == 1, said
        assert said.startswith(f'safe_align.{stage}: error: ')
        assert not MADE & {path.name for path in (tmp_path / 'out').glob('**/*')}
        return said

    return run


@pytest.fixture
def sft(tiny, starter):
    """The options of fine-tuning; later ones override them."""
    return (
        'finetune', '--model_name_or_path', tiny, '--datasets', f'jsonl:8/-1:{starter / "train.jsonl"}',
        '--per_device_train_batch_size', 4, *COMMON,
    )  # fmt: skip


@pytest.fixture
def lag(chain, starter):
    """The options of PPO-Lag."""
    return (
        'algorithms.ppo_lag', '--actor_model_name_or_path', chain / 'finetune', '--datasets',
        f'jsonl:8/-1:{starter / "train.jsonl"}', '--reward_model_name_or_path', chain / 'reward',
        '--cost_model_name_or_path', chain / 'cost', '--max_new_tokens', 4, *COMMON,
    )  # fmt: skip
