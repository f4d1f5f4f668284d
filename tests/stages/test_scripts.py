"""The shell scripts: which module each runs, that a user's flags come last, and how several devices are started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / 'scripts'
MODULES = {
    'sft': 'safe_align.finetune',
    'reward-model': 'safe_align.values.reward',
    'cost-model': 'safe_align.values.cost',
    'dpo': 'safe_align.algorithms.preference',
    'kto': 'safe_align.algorithms.preference',
    'online': 'safe_align.algorithms.online_dpo',
    'ppo': 'safe_align.algorithms.ppo',
    'ppo-lag': 'safe_align.algorithms.ppo_lag',
    'ppo-reward-shaping': 'safe_align.algorithms.ppo_reward_shaping',
    'reinforce-ci-lag': 'safe_align.algorithms.reinforce_ci_lag',
    'arena-evaluation': 'safe_align.evaluate.arena',
    'bigbench': 'safe_align.evaluate.bigbench',
    'compare': 'safe_align.evaluate.compare',
    'gpt4-evaluation': 'safe_align.evaluate.gpt4',
    'kl': 'safe_align.evaluate.kl',
    'reward-evaluation': 'safe_align.evaluate.reward',
    'cost-evaluation': 'safe_align.evaluate.cost',
    'safety-test': 'safe_align.evaluate.safety_test',
}


def run(script: str, *flags: str, folder: Path, python: str = sys.executable, devices: int = 1):
    return subprocess.run(
        ['bash', SCRIPTS / f'{script}.sh', *flags], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, 'PYTHON': python, 'NUM_DEVICES': str(devices), 'MASTER_PORT': '29511'},
    )  # fmt: skip


@pytest.fixture
def echo(tmp_path) -> str:
    """A python that says what it was called with."""
    path = tmp_path / 'python'
    path.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_every_script_is_known_here():
    others = {'launch', 'demo', 'online-dpo'}  # test_online_script.py has the last
    assert {path.stem for path in SCRIPTS.glob('*.sh')} == {*MODULES, *others}


@pytest.mark.parametrize('script', MODULES)
def test_a_script_runs_its_stage_from_any_folder_and_a_flag_of_the_user_wins(script, echo, tmp_path):
    said = run(script, '--output_dir', 'mine', folder=tmp_path, python=echo).stdout.splitlines()
    assert said[:2] == ['-m', MODULES[script]]
    assert said[-2:] == ['--output_dir', 'mine']
    wrong = run(script, '--no_such_flag', '1', folder=tmp_path)  # all flags of the script itself are the stage's
    assert wrong.returncode == 2
    assert '--no_such_flag' in wrong.stderr.splitlines()[-1]
    assert [line for line in wrong.stderr.splitlines() if 'error' in line] == wrong.stderr.splitlines()[-1:]


def test_several_devices_or_nodes_are_started_by_deepspeed_s_launcher(echo, tmp_path):
    said = run('sft', '--lr', '1e-5', folder=tmp_path, python=echo, devices=4).stdout.splitlines()
    assert said[:6] == ['-m', 'deepspeed.launcher.runner', '--master_port', '29511', '--num_gpus', '4']
    assert said[6:10] == ['--module', 'safe_align.finetune', '--zero_stage', '3']
    assert said[-2:] == ['--lr', '1e-5']
    said = run('sft', '--hostfile', 'hosts', '--lr', '1e-5', folder=tmp_path, python=echo).stdout.splitlines()
    assert said[4:6] == ['--hostfile', 'hosts']
    assert said.count('--hostfile') == 1
    assert said[-2:] == ['--lr', '1e-5']
