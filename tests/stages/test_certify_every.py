"""--certify_every as a user runs it: looks at the policy in training, and the same lines after a resumption."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def plain(lag) -> tuple:
    """Four rounds of PPO-Lag."""
    return (
        *lag, '--per_device_prompt_batch_size', 4, '--epochs', 2, '--save_interval', 1, '--actor_lr', 1e-3,
        '--threshold', 50,
    )  # fmt: skip


@pytest.fixture
def gated(plain, starter) -> tuple:
    """The same with a look after the second and the fourth round."""
    return (
        *plain, '--certify_every', 2, '--certify_datasets', f'jsonl:16/-1:{starter / "test.jsonl"}',
        '--certify_range', -100, 100,
    )  # fmt: skip


def test_looks_are_logged_and_a_resumed_run_logs_the_same(ends, gated, tmp_path):
    code, said = ends(*gated)
    assert code == 0, said
    path = tmp_path / 'out/metrics.jsonl'
    text = path.read_text(encoding='utf-8')
    looks = [line for line in map(json.loads, text.splitlines()) if 'certify/look' in line]
    assert [(line['step'], line['certify/look']) for line in looks] == [(2, 1), (4, 2)]
    assert looks[0]['certify/mean_cost'] != looks[1]['certify/mean_cost']  # another policy
    assert all(line['certify/established'] for line in looks)  # costs of about 0, and a threshold of 50
    assert len((tmp_path / 'out/prompts.hashes').read_text(encoding='utf-8').splitlines()) == 8 + 16  # spent
    record = json.loads((tmp_path / 'out/safe_align.json').read_text(encoding='utf-8'))
    assert record['certify'][0]['used'] == 16
    shutil.rmtree(tmp_path / 'out/checkpoints/step-4')
    for name in ('manifest.json', 'safe_align.json', 'model.safetensors', 'config.json'):
        (tmp_path / 'out' / name).unlink()
    code, said = ends(*gated)
    assert code == 0
    assert 'goes on from step 3' in said
    assert path.read_text(encoding='utf-8') == text


def test_looks_leave_training_as_it_is(ends, plain, gated, tmp_path):
    found = []
    for number, options in enumerate((plain, gated)):
        assert ends(*options, '--output_dir', tmp_path / str(number))[0] == 0
        lines = (tmp_path / str(number) / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
        found.append([line for line in lines if 'certify/look' not in line])
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_prompts_that_a_parent_was_trained_on_are_counted(fails, gated, starter):
    train, test = (starter / f'{name}.jsonl' for name in ('train', 'test'))
    said = fails(*gated, '--datasets', f'jsonl:8/-1:{test}', '--certify_datasets', f'jsonl:24/-1:{train}')
    assert '--certify_datasets: 24 of 24 prompts are not new: ' in said
