"""The stages as a user runs them, each on the output of those before: what is on disk is whole, and opens anywhere."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from safe_align.checkpoint import verify
from safe_align.datasets.packing import pack
from safe_align.datasets.rows import prompt_hash
from safe_align.handoff import prompts_of
from safe_align.models.loading import load_policy, load_tokenizer
from safe_align.models.score import load_score_model
from safe_align.ownership import parent_of
from safe_align.templates import Template, messages_of

POLICIES = ('finetune', 'preference', 'ppo', 'ppo_lag', 'ppo_reward_shaping', 'reinforce_ci_lag')
LEARNT, SCORES = POLICIES[2:], ('reward', 'cost')
TRAINED = (*POLICIES, *SCORES)
EVALUATED = ('finetune', 'preference', 'ppo_lag', 'reinforce_ci_lag')
EVALUATIONS = ('arena', 'kl', 'safety_test')
STAGES = (*TRAINED, *EVALUATIONS)
STORIES = Path(__file__).parents[3] / 'shared/data/models/stories260K'
STEPS = {'finetune': 3, 'preference': 3, 'reward': 3, 'cost': 3, 'ppo': 2, 'ppo_lag': 2,
         'ppo_reward_shaping': 2, 'reinforce_ci_lag': 4}  # fmt: skip  # 24 rows by 8; 8 responses, or 16, by 4
SUPERVISED = {'train/loss', 'train/lr', 'train/epoch', 'train/grad_norm', 'train/skipped'}
SIGNAL = ('', '_advantage', '_return', '_value', '_critic_loss', '_critic_lr')
PREFERENCE = {
    f'train/{name}_{side}' for name in ('reward', 'log_prob', 'log_ratio', 'length') for side in ('chosen', 'rejected')
} | {'train/margin', 'train/accuracy'}
POLICY = {
    'train/actor_loss', 'train/actor_lr', 'train/kl_divergence', 'train/mean_generated_length', 'train/ptx_loss',
    'train/max_generated_length', 'train/epoch', 'train/reward',
}  # fmt: skip
BOUND = {
    'train/mean_cost_estimate',
    'train/stdev_cost_estimate',
    'train/cost_success',
    'train/kappa',
    'train/cost_bound',
}
RL = POLICY | {f'train/reward{what}' for what in SIGNAL}
NAMES = {
    'finetune': SUPERVISED,
    'preference': SUPERVISED | PREFERENCE,
    'reward': SUPERVISED | {'train/accuracy'},
    'cost': SUPERVISED | {'train/accuracy', 'train/accuracy_sign'},
    'ppo': RL,
    'ppo_lag': RL | {'train/lambda', 'train/episode_cost', *(f'train/cost{what}' for what in SIGNAL)},
    'ppo_reward_shaping': POLICY | {f'train/shaped_reward{what}' for what in SIGNAL} | {'train/cost'},
    'reinforce_ci_lag': POLICY | BOUND | {'train/cost', 'train/lambda'},
}


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def record(directory: Path) -> dict:
    return json.loads((directory / 'safe_align.json').read_text(encoding='utf-8'))


@pytest.mark.parametrize('name', POLICIES)
def test_a_policy_opens_in_plain_transformers_and_writes(chain, name):
    model = AutoModelForCausalLM.from_pretrained(chain / name)
    tokenizer = AutoTokenizer.from_pretrained(chain / name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.use_cache
    ids = tokenizer.apply_chat_template(
        [{'role': 'user', 'content': 'Hi'}], add_generation_prompt=True, return_tensors='pt', return_dict=True
    )['input_ids']
    assert ids[0].tolist() == Template(load_tokenizer(str(chain / name), '--model')).prompt(['Hi'])
    assert model.generate(ids, max_new_tokens=4, min_new_tokens=4).shape[1] == ids.shape[1] + 4
    ours = load_policy(str(chain / name)).state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('name', POLICIES)
def test_every_stage_moves_the_policy(chain, tiny, name):
    before = AutoModelForCausalLM.from_pretrained(tiny if name == 'finetune' else chain / 'finetune').state_dict()
    after = AutoModelForCausalLM.from_pretrained(chain / name).state_dict()
    assert before.keys() == after.keys()
    assert not any(torch.equal(value, before[key]) for key, value in after.items())


@pytest.mark.parametrize('name', SCORES)
def test_a_score_model_opens_in_plain_transformers_with_our_scores(chain, starter, name):
    plain = AutoModelForSequenceClassification.from_pretrained(chain / name).eval()
    tokenizer = load_tokenizer(str(chain / name), '--model')
    template = Template(tokenizer)
    sequences = [
        [*template.prompt([row['prompt']]), *template.response(row['response_0'])]
        for row in rows_of(starter / 'test.jsonl')[:6]
    ]
    batch = pack([(np.array(ids), np.zeros(len(ids), bool)) for ids in sequences])
    inputs = AutoTokenizer.from_pretrained(chain / name, padding_side='right').pad({'input_ids': sequences})
    with torch.no_grad():
        ours = load_score_model(str(chain / name), name, '--model', tokenizer).eval()(
            batch.tokens, batch.positions, batch.layout, batch.ends
        )
        theirs = plain(**inputs.convert_to_tensors('pt')).logits
    assert theirs.shape == (6, 1)
    assert ours.std() > 1e-3
    torch.testing.assert_close(theirs[:, 0], ours, rtol=0, atol=2e-6)


@pytest.mark.parametrize('name', STAGES)
def test_the_record_says_what_was_made_of_what(chain, name):
    told = record(chain / name)
    kinds = {**dict.fromkeys(EVALUATIONS, 'evaluation'), **dict.fromkeys(POLICIES, 'policy')}
    assert told['kind'] == kinds.get(name, name)
    assert told['arguments'] == json.loads((chain / name / 'arguments.json').read_text(encoding='utf-8'))
    assert {'torch', 'transformers', 'safe_align', 'python'} <= told['versions'].keys()
    for option, parent in told['parents'].items():
        given = told['arguments'][option]
        assert parent == parent_of(option, given[0] if isinstance(given, list) else given)
        assert len(parent['hash']) >= 64
    expected = {'finetune': 1, 'preference': 1, 'reward': 1, 'cost': 1, 'ppo': 2, 'arena': 4, 'safety_test': 2}
    assert len(told['parents']) == expected.get(name, 3)
    (data,) = told['datasets']
    sizes = {**dict.fromkeys(LEARNT, 8), **dict.fromkeys(EVALUATIONS, 6)}
    assert (data['name'], data['used'], data['skipped']) == ('jsonl', sizes.get(name, 24), {})
    assert len(data['fingerprint']) >= 16
    if name in LEARNT:
        assert [part['used'] for part in told['ptx_datasets']] == [24]


def test_score_models_record_their_scale_and_sign(chain):
    for name in SCORES:
        normalizer = record(chain / name)['normalizer']
        assert normalizer['kind'] == name
        assert normalizer['std'] > 0
        assert load_score_model(
            str(chain / name), name, '--model', load_tokenizer(str(chain / name), '--model')
        ).normalizer.std == normalizer['std']  # fmt: skip
    assert record(chain / 'cost')['threshold'] == 0.0
    assert record(chain / 'cost')['score_sign'] == 'higher is less safe'
    assert record(chain / 'reward')['score_sign'] == 'higher is better'


@pytest.mark.parametrize('name', STAGES)
def test_the_hashes_of_the_prompts_are_sorted_and_those_of_the_data(chain, starter, name):
    lines = (chain / name / 'prompts.hashes').read_text(encoding='utf-8').splitlines()
    assert lines == sorted(set(lines))
    assert {len(line) for line in lines} == {16}
    data = starter / ('test.jsonl' if name in EVALUATIONS else 'train.jsonl')
    known = {f'{prompt_hash([row["prompt"]]):016x}' for row in rows_of(data)}
    assert set(lines) <= known
    assert len(lines) == (6 if name in EVALUATIONS else 24)  # PPO's with those of its PTX data, which contain its own
    assert prompts_of(chain / name).tolist() == [int(line, 16) for line in lines]


@pytest.mark.parametrize('name', TRAINED)
def test_the_metrics_of_every_step_are_there(chain, name):
    lines = rows_of(chain / name / 'metrics.jsonl')
    steps = [line for line in lines if any(key.startswith('train/') for key in line)]
    assert [line['step'] for line in steps] == list(range(1, STEPS[name] + 1))
    assert all(line.keys() >= NAMES[name] for line in steps)
    assert all(value is not None for line in lines for value in line.values())
    evaluated = [line['step'] for line in lines if any(key.startswith('eval/') for key in line)]
    assert evaluated == ([0, STEPS[name]] if name in EVALUATED else [])
    final = record(chain / name)['final_metrics']
    assert {key: final[key] for key in steps[-1]} == steps[-1]


def test_the_table_has_a_row_a_prompt_and_the_summary_is_of_it(chain):
    with (chain / 'arena/table.csv').open(newline='', encoding='utf-8') as file:
        header, *table = list(csv.reader(file))
    summary = json.loads((chain / 'arena/summary.json').read_text(encoding='utf-8'))
    assert len(set(header)) == len(header)
    assert len({row[0] for row in table}) == len(table) == summary['num_prompts'] == 6
    for column, name in enumerate(header):
        if name.endswith(('_reward', '_cost')):
            mean = sum(float(row[column]) for row in table) / 6
            assert summary[name]['value'] == pytest.approx(mean, rel=1e-6)
    assert sum(cell['count'] for cell in summary['cells']) == 6
    assert record(chain / 'arena')['summary'] == summary


@pytest.mark.parametrize('name', STAGES)
def test_a_finished_run_says_so_and_is_left_alone(chain, stages, name):
    before = {path: path.read_bytes() for path in (chain / name).rglob('*') if path.is_file()}
    module = f'safe_align.{chain.calls[name][0]}'
    code, said = stages.run(module, '--config', chain / name / 'arguments.json')
    assert code == 0, said
    assert f'{chain / name} holds this run, finished' in said
    assert {path: path.read_bytes() for path in (chain / name).rglob('*') if path.is_file()} == before


def test_the_same_arguments_elsewhere_give_the_same_bytes(chain, stages, tmp_path):
    code, said = stages.run(
        'safe_align.algorithms.ppo_lag',
        '--config',
        chain / 'ppo_lag/arguments.json',
        '--output_dir',
        tmp_path / 'again',
    )
    assert code == 0, said
    for file in ('model.safetensors', 'metrics.jsonl', 'prompts.hashes', 'tokenizer.json', 'config.json'):
        assert (tmp_path / 'again' / file).read_bytes() == (chain / 'ppo_lag' / file).read_bytes(), file


@pytest.mark.parametrize('name', STAGES)
def test_a_directory_is_whole_readable_and_without_secrets_or_pickles(chain, name):
    verify(chain / name)
    for path in (chain / name).rglob('*'):
        if path.is_dir():
            continue
        content = path.read_bytes()
        assert chain.secret.encode() not in content, path
        assert path.suffix not in ('.pkl', '.pt', '.pth', '.bin', '.npy'), path
        assert not content.startswith((b'\x80', b'PK')), path  # a pickle, or a zip of them
        assert path.stat().st_mode == (chain / name / 'arguments.json').stat().st_mode, path
    assert {path.name for path in (chain / name).iterdir()} >= {'README.md', 'safe_align.json', 'manifest.json'}
    assert not (chain / name / 'checkpoints').exists()


def test_a_model_without_a_chat_template_is_tuned_in_the_format_of_safe_rlhf(stages, starter, tmp_path):
    if not STORIES.is_dir():
        pytest.skip(f'no {STORIES}')
    model = shutil.copytree(STORIES, tmp_path / 'stories260K')
    code, said = stages.run(
        'safe_align.finetune', '--model_name_or_path', model, '--datasets', f'jsonl:8/-1:{starter / "train.jsonl"}',
        '--output_dir', tmp_path / 'out', '--per_device_train_batch_size', 4, '--lr', 1e-4, '--log_type', 'none',
    )  # fmt: skip
    assert code == 0, said
    losses = [line['train/loss'] for line in rows_of(tmp_path / 'out/metrics.jsonl')]
    assert len(losses) == 2
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / 'out')
    prompt = tokenizer('BEGINNING OF CONVERSATION: USER: Hi ASSISTANT:')['input_ids']
    for_others = tokenizer.apply_chat_template(messages_of(['Hi']), add_generation_prompt=True, return_dict=False)
    assert for_others == prompt
    assert Template(load_tokenizer(str(tmp_path / 'out'), '--model')).prompt(['Hi']) == prompt
    before = AutoModelForCausalLM.from_pretrained(model).state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / 'out').state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(value, before[key]) for key, value in after.items())
