"""`--help` answers at once, of every stage, and so does a mistake in the flags."""

from __future__ import annotations

import subprocess
import sys

import pytest
from forks import ROOT

from safe_align.datasets import RawDataset
from safe_align.losses import listing
from safe_align.online import reweighters
from safe_align.options import help_lines

READERS = [
    'finetune',
    'values.reward',
    'values.cost',
    'algorithms.preference',
    'algorithms.ppo',
    'algorithms.ppo_lag',
    'evaluate.arena',
    'evaluate.compare',
    'evaluate.cost',
    'evaluate.kl',
]
SPEAKERS = ['serve.cli', 'serve.arena']  # they write nothing
STAGES = [*READERS, 'bandit', 'evaluate.bigbench', 'evaluate.gpt4', *SPEAKERS]
# runs `python -m` in this process, and says afterwards which slow libraries it has imported
WATCH = """
import runpy, sys
sys.argv = sys.argv[1:]
code = 0
try:
    runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
except SystemExit as end:
    code = end.code or 0
slow = {'torch', 'transformers', 'numpy', 'scipy', 'deepspeed', 'wandb', 'matplotlib'}
print('IMPORTED', *sorted(slow & set(sys.modules)))
sys.exit(code)
"""


def watch(stage: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, '-c', WATCH, f'safe_align.{stage}', *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize('stage', STAGES)
def test_help_exits_with_0_and_imports_nothing_slow(stage):
    ended = watch(stage, '--help')
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ''
    assert ended.stdout.splitlines()[-1].split() == ['IMPORTED']
    words = ended.stdout.replace(',', ' ').split()
    assert stage not in READERS or set(RawDataset.names()) <= set(words)
    assert f'safe_align.{stage}' in ended.stdout.splitlines()[0]
    assert ('--output_dir' in words) == (stage not in SPEAKERS)


@pytest.mark.parametrize('stage', STAGES)
def test_every_flag_has_its_line_of_help(stage):
    lines = watch(stage, '--help').stdout.splitlines()
    flags = [n for n, line in enumerate(lines) if line.startswith('  --')]
    assert len(flags) > 15
    for n in flags:  # what it is for stands behind it, or on the next line
        assert len(lines[n].split('  ')) > 3 or lines[n + 1].startswith(' ' * 20), lines[n]


@pytest.mark.parametrize('stage', STAGES)
def test_a_mistake_in_the_flags_is_told_before_anything_slow_is_imported(stage):
    ended = watch(stage, '--plugn', 'x')
    assert ended.returncode == 2
    assert ended.stdout.split() == ['IMPORTED']
    assert ended.stderr == f'safe_align.{stage}: error: unknown flag --plugn (did you mean --plugin?)\n'


def test_the_help_of_preference_learning_tells_of_each_loss_and_reweighter():
    ended = watch('algorithms.preference', '--help')
    assert ended.returncode == 0, ended.stderr
    assert all(line in ended.stdout for line in (*help_lines(listing()), *help_lines(reweighters.listing())))
