"""A model that is not there, is another, or is damaged is refused in one line, and nothing half is on disk."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file


@pytest.mark.parametrize(
    ('make', 'part'),
    [
        (lambda path: path.mkdir(), 'not a model directory: no config.json'),
        (lambda path: path.write_text('x'), 'a file, where a model directory was expected'),
        (lambda path: None, 'no such directory'),
    ],
)
def test_what_is_no_model_directory_is_refused(fails, sft, lag, tmp_path, make, part):
    path = tmp_path / 'model'
    make(path)
    for call, flag in (
        (sft, '--model_name_or_path'),
        (lag, '--actor_model_name_or_path'),
        (lag, '--cost_model_name_or_path'),
    ):
        assert f'{flag} {path}: {part}' in fails(*call, flag, path)


def test_a_model_of_another_kind_is_refused(fails, chain, tiny, lag, sft, starter):
    arena = (
        'evaluate.arena', '--red_corner_model_name_or_path', tiny, '--blue_corner_model_name_or_path', tiny,
        '--reward_model_name_or_path', chain / 'reward', '--cost_model_name_or_path', chain / 'cost',
        '--datasets', f'jsonl:2/-1:{starter / "test.jsonl"}', '--max_new_tokens', 2,
    )  # fmt: skip
    for call in (lag, arena):
        said = fails(*call, '--reward_model_name_or_path', chain / 'cost')
        assert f'--reward_model_name_or_path {chain / "cost"}: a cost model, where a reward model was expected' in said
        for policy in (chain / 'finetune', tiny):
            assert 'where a reward model was expected' in fails(*call, '--reward_model_name_or_path', policy)
    corner = '--blue_corner_model_name_or_path'
    for call, flag in ((sft, '--model_name_or_path'), (lag, '--actor_model_name_or_path'), (arena, corner)):
        said = fails(*call, flag, chain / 'reward')
        assert f'{flag} {chain / "reward"}: a reward model, where a policy model was expected' in said


def test_a_score_model_of_unknown_making_is_no_policy(fails, chain, sft, tmp_path):
    place = shutil.copytree(chain / 'reward', tmp_path / 'reward')
    for name in ('safe_align.json', 'manifest.json', '.lock'):
        (place / name).unlink()
    said = fails(*sft, '--model_name_or_path', place)
    assert 'LlamaForSequenceClassification, where a policy model was expected' in said


def test_a_critic_that_cannot_read_what_the_policy_writes_is_refused(fails, chain, lag, tmp_path):
    place = shutil.copytree(chain / 'reward', tmp_path / 'other')
    for name in ('manifest.json', '.lock'):
        (place / name).unlink()
    tokenizer = json.loads((place / 'tokenizer.json').read_text(encoding='utf-8'))
    tokenizer['model']['merges'].pop()
    (place / 'tokenizer.json').write_text(json.dumps(tokenizer), encoding='utf-8')
    for flag in ('--reward_model_name_or_path', '--reward_critic_model_name_or_path'):
        said = fails(*lag, flag, place)
        assert f"{flag} {place}: its tokenizer does not match the policy's" in said
        assert 'give --reward_critic_model_name_or_path a model with the tokenizer of' in said


def test_weights_that_are_missing_or_damaged_are_not_made_up(fails, tiny, chain, sft, tmp_path):
    def damaged(name: str, change, source: Path = tiny) -> Path:
        place = shutil.copytree(source, tmp_path / name)
        change(place / 'model.safetensors')
        return place

    def lose_one(path: Path) -> None:
        weights = load_file(path)
        del weights['model.layers.0.mlp.up_proj.weight']
        save_file(weights, path, metadata={'format': 'pt'})

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)

    cases = {
        'a checkpoint with a missing file': damaged('none', Path.unlink),
        'weights are missing: model.layers.0.mlp.up_proj.weight': damaged('one', lose_one),
        'cannot be opened': damaged('short', lambda path: path.write_bytes(path.read_bytes()[:5000])),
        'damaged: ': damaged('flipped', flip, chain / 'finetune'),
    }
    for part, place in cases.items():
        said = fails(*sft, '--model_name_or_path', place)
        assert part in said
        assert str(place) in said


def test_a_model_without_a_tokenizer_is_refused(fails, tiny, sft, tmp_path):
    place = shutil.copytree(tiny, tmp_path / 'mute')
    for path in place.glob('tokenizer*'):
        path.unlink()
    assert f'--model_name_or_path {place}: no tokenizer' in fails(*sft, '--model_name_or_path', place)


@pytest.mark.parametrize(
    ('name', 'change', 'part'),
    [
        ('tokenizer.json', None, 'no tokenizer: '),
        ('tokenizer_config.json', [], 'no tokenizer: '),
        ('config.json', {'num_attention_heads': 0}, 'model: '),
        ('config.json', {'hidden_size': 'wide'}, 'model: '),
        ('config.json', {'dtype': 'nope'}, 'model: '),
        ('adapter_config.json', {'base_model_name_or_path': 5}, 'names no base model'),
        ('adapter_config.json', {'base_model_name_or_path': '../model'}, 'is an adapter too'),
        ('chat_template.jinja', '{% for x in %}', "the tokenizer's chat template fails: Expected an expression"),
        ('chat_template.jinja', '{{ a.b }}', "the tokenizer's chat template fails: 'a' is undefined"),
    ],
)
def test_a_damaged_text_of_a_model_is_one_line(fails, tiny, sft, tmp_path, monkeypatch, name, change, part):
    monkeypatch.chdir(tmp_path)
    path = shutil.copytree(tiny, tmp_path / 'model') / name
    if isinstance(change, dict):
        change = {**(json.loads(path.read_text()) if path.is_file() else {}), **change}
    path.write_text(change if isinstance(change, str) else json.dumps(change))
    assert part in fails(*sft, '--model_name_or_path', path.parent)


def test_a_length_beyond_a_model_s_table_of_positions_is_refused(fails, family, sft):
    model = family('gpt2', n_positions=64)
    said = fails(*sft, '--model_name_or_path', model)
    assert f'--max_length 96: {model} has positions for 64 tokens' in said


def test_scores_that_are_no_numbers_are_no_losses(ends, chain, tiny, starter, tmp_path):
    place = shutil.copytree(chain / 'reward', tmp_path / 'reward')
    for name in ('manifest.json', '.lock'):
        (place / name).unlink()
    weights = load_file(place / 'model.safetensors')
    head = next(name for name in weights if name.startswith('score.'))
    save_file({**weights, head: weights[head] * math.nan}, place / 'model.safetensors', {'format': 'pt'})
    data = f'jsonl:2/-1:{starter / "test.jsonl"}'
    rows = [{'prompt': 'Why?', 'policy': 'So.', 'chosen': 'Because.'}]
    (tmp_path / 'samples.json').write_text(json.dumps(rows))
    short = ('--datasets', data, '--max_length', 96, '--max_new_tokens', 2, '--bf16', False)
    for call in (
        ('evaluate.arena', '--red_corner_model_name_or_path', tiny, '--blue_corner_model_name_or_path', tiny,
         '--cost_model_name_or_path', chain / 'cost', *short),
        ('evaluate.kl', '--model_name_or_path', tiny, '--ref_model_name_or_path', tiny, *short),
        ('evaluate.compare', '--samples', tmp_path / 'samples.json', '--bf16', False),
        ('algorithms.ppo', '--actor_model_name_or_path', tiny, *short),
    ):  # fmt: skip
        code, said = ends(*call, '--reward_model_name_or_path', place, '--output_dir', tmp_path / call[0])
        assert code == 2, said
        assert f'error: --reward_model_name_or_path {place}: a score is not finite\n' in said  # a bar may go on
