"""Ten steps of each stage from fixed random weights, in float32, against a text file of losses.

`make golden` writes the files anew; the diff is the review.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

from safe_align.config import parse

HERE = Path(__file__).parent
COMMON = ('--log_type', 'none', '--bf16', 'False', '--max_length', '96')
STEPS = 10


def run(stage: str, config: str, *arguments) -> None:
    module = importlib.import_module(f'safe_align.{stage}')
    assert module.main(parse(getattr(module, config), [*map(str, arguments), *COMMON])) == 0


@pytest.fixture(scope='module')
def places(tmp_path_factory, family, starter):
    """Outputs of the stages, each made from the ones before."""
    out = tmp_path_factory.mktemp('golden')
    rows = f'jsonl:40/-1:{starter / "train.jsonl"}'
    supervised = ('--datasets', rows, '--per_device_train_batch_size', 4, '--lr', '1e-3')
    model = ('--model_name_or_path', family('llama'))
    run('finetune.__main__', 'FinetuneConfig', *model, *supervised, '--output_dir', out / 'finetune')
    score = ('--model_name_or_path', out / 'finetune', *supervised, '--regularization', '0.001')
    run('values.reward', 'RewardConfig', *score, '--output_dir', out / 'reward')
    preference = ('--model_name_or_path', out / 'finetune', *supervised, '--loss', 'dpo', '--nll_coeff', '0.1')
    run('algorithms.preference', 'PreferenceConfig', *preference, '--output_dir', out / 'preference')
    run('values.cost', 'CostConfig', *score, '--output_dir', out / 'cost')
    actor = (
        '--actor_model_name_or_path', out / 'finetune', '--reward_model_name_or_path', out / 'reward',
        '--datasets', rows, '--max_new_tokens', 8, '--per_device_prompt_batch_size', 8,
        '--per_device_train_batch_size', 4, '--actor_lr', '1e-3', '--ptx_datasets', rows, '--ptx_coeff', '0.5',
    )  # fmt: skip
    rl = (*actor, '--critic_lr', '1e-3')
    run('algorithms.ppo', 'PPOConfig', *rl, '--output_dir', out / 'ppo')
    cost = ('--cost_model_name_or_path', out / 'cost')
    run('algorithms.ppo_lag', 'PPOLagConfig', *rl, *cost, '--output_dir', out / 'ppo_lag')
    shaped = ('--lambda_init', '0.5', '--output_dir', out / 'ppo_reward_shaping')
    run('algorithms.ppo_reward_shaping', 'RewardShapingConfig', *rl, *cost, *shaped)
    two = ('--rloo', True, '--num_samples_per_prompt', 2, '--per_device_train_batch_size', 8)
    run('algorithms.reinforce_ci_lag', 'ReinforceConfig', *actor, *cost, *two, '--output_dir', out / 'reinforce_ci_lag')
    return out


@pytest.mark.parametrize(
    'stage', ['finetune', 'preference', 'reward', 'cost', 'ppo', 'ppo_lag', 'ppo_reward_shaping', 'reinforce_ci_lag']
)
def test_ten_steps_are_those_on_record(places, stage):
    lines = (places / stage / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    kept = ('loss', 'grad_norm', 'step')
    losses = [{k: v for k, v in json.loads(line).items() if any(name in k for name in kept)} for line in lines]
    path = HERE / f'{stage}.jsonl'
    if os.environ.get('GOLDEN') == 'write':
        path.write_text(''.join(f'{json.dumps(line)}\n' for line in losses), encoding='utf-8')
    golden = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
    assert len(golden) == STEPS
    for got, expected in zip(losses, golden, strict=True):
        assert got == pytest.approx(expected, rel=2e-3, abs=2e-4)
