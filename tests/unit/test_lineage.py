"""What a policy was made of, and that no model in the line has seen a prompt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from safe_align.checkpoint import seal
from safe_align.config import UserError
from safe_align.evaluate.certification.lineage import check_new, trace
from safe_align.ownership import parent_of


def base(path: Path) -> Path:
    path.mkdir()
    (path / 'config.json').write_text('{}', encoding='utf-8')
    return path


def stage(path: Path, prompts: list[int], *parents: str | Path) -> Path:
    """A finished output directory."""
    path.mkdir()
    found = {f'parent_{n}': parent_of(f'parent_{n}', str(parent)) for n, parent in enumerate(parents)}
    (path / 'safe_align.json').write_text(json.dumps({'kind': 'policy', 'parents': found}), encoding='utf-8')
    (path / 'prompts.hashes').write_text(''.join(f'{n:016x}\n' for n in prompts), encoding='utf-8')
    seal(path)
    return path


@pytest.fixture
def line(tmp_path):
    """base -> sft -> (reward, ppo): the policy is ppo, with sft and reward as its parents."""
    sft = stage(tmp_path / 'sft', [1, 2], base(tmp_path / 'base'))
    reward = stage(tmp_path / 'reward', [3], sft)
    return stage(tmp_path / 'ppo', [4, 2**64 - 1], sft, reward)


def test_the_line_holds_each_model_once_with_its_prompts(line, tmp_path):
    found = trace([('--model', str(line))])
    assert [Path(one.path).name for one in found] == ['ppo', 'sft', 'reward', 'base']
    assert [one.entry()['num_prompts'] for one in found] == [2, 2, 1, None]
    assert found[0].hash == parent_of('x', str(line))['hash']


@pytest.mark.parametrize(('prompt', 'name'), [(4, 'ppo'), (2**64 - 1, 'ppo'), (2, 'sft'), (3, 'reward')])
def test_a_prompt_that_any_of_them_has_seen_is_counted(line, prompt, name):
    found = trace([('--model', str(line))])
    check_new(found, np.array([10, 11], np.uint64))
    with pytest.raises(UserError, match=rf'1 of 3 prompts are not new: \S*{name} was trained on 1 of them'):
        check_new(found, np.array([10, prompt, 11], np.uint64))


def test_a_model_of_a_hub_ends_its_line(tmp_path):
    policy = stage(tmp_path / 'sft', [1], 'organization/model')
    found = trace([('--model', str(policy)), ('--cost', 'organization/cost')])
    assert [(one.path, one.hash) for one in found[1:]] == [('organization/cost', None), ('organization/model', None)]


@pytest.mark.parametrize('name', ['base', 'sft', 'reward'])
def test_a_parent_that_is_gone_or_changed_is_named(line, tmp_path, name):
    place = tmp_path / name
    shutil.copytree(place, tmp_path / 'kept')
    (place / ('config.json' if name == 'base' else 'manifest.json')).write_text('{"x": {}}', encoding='utf-8')
    with pytest.raises(UserError, match=rf'its parent \S*{name} has changed since'):
        trace([('--model', str(line))])
    shutil.rmtree(place)
    with pytest.raises(UserError, match=rf'its parent \S*{name} is not there, so nothing says'):
        trace([('--model', str(line))])
    shutil.move(tmp_path / 'kept', place)
    assert len(trace([('--model', str(line))])) == 4


def test_directories_that_moved_together_are_found(line, tmp_path):
    shutil.copytree(tmp_path, tmp_path.parent / f'{tmp_path.name}-moved')
    for name in ('base', 'sft', 'reward', 'ppo'):
        shutil.rmtree(tmp_path / name)
    found = trace([('--model', str(tmp_path.parent / f'{tmp_path.name}-moved/ppo'))])
    assert [one.entry()['num_prompts'] for one in found] == [2, 2, 1, None]


@pytest.mark.parametrize('damage', ['prompts.hashes', 'safe_align.json', 'manifest.json'])
def test_a_record_that_is_not_what_was_written_proves_nothing(line, damage):
    place = line / damage
    if damage == 'manifest.json':
        place.unlink()
    else:
        place.write_text(place.read_text(encoding='utf-8') + '\n', encoding='utf-8')
    with pytest.raises(UserError, match=r'what \S*ppo was trained on cannot be proved'):
        trace([('--model', str(line))])
