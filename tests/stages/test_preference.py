"""The preference stage: losses of the user's own, mistakes, and the reference that is read once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from safe_align.losses import LOSSES

ROOT = Path(__file__).parents[2]
STAGE = 'algorithms.preference'
SEED = """
from abc import ABC, abstractmethod
from typing import Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F


class BaseLoss(nn.Module, ABC):
    def __init__(self, beta: float, label_smoothing: float = 0.0, ipo: bool = False) -> None:
        super().__init__()
        self.beta = beta
        self.label_smoothing = label_smoothing
        self.ipo = ipo

    @abstractmethod
    def forward(
        self,
        policy_chosen_logps: torch.Tensor,
        policy_rejected_logps: torch.Tensor,
        reference_chosen_logps: torch.Tensor,
        reference_rejected_logps: torch.Tensor,
    ) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pass


class DefaultDPOLoss(BaseLoss):
    def forward(
        self,
        policy_chosen_logps: torch.Tensor,
        policy_rejected_logps: torch.Tensor,
        reference_chosen_logps: torch.Tensor,
        reference_rejected_logps: torch.Tensor,
    ) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = policy_chosen_logps - policy_rejected_logps - (reference_chosen_logps - reference_rejected_logps)
        if self.ipo:
            losses = (logits - 1 / (2 * self.beta)) ** 2
        else:
            losses = (
                -F.logsigmoid(self.beta * logits) * (1 - self.label_smoothing)
                - F.logsigmoid(-self.beta * logits) * self.label_smoothing
            )
        chosen_rewards = self.beta * (policy_chosen_logps - reference_chosen_logps).detach()
        rejected_rewards = self.beta * (policy_rejected_logps - reference_rejected_logps).detach()
        return losses.mean(), chosen_rewards, rejected_rewards


LOSSES = {
    "default": "DefaultDPOLoss",
    ## Please add a custome loss
}
"""
BROKEN = """
import torch
class Flat:
    def forward(self, policy_chosen_logps):
        return policy_chosen_logps.sum()[None], policy_chosen_logps, policy_chosen_logps
    __call__ = forward
class Odd:
    def forward(self, policy_choosen_logps): ...
class Both:
    def forward(self, policy_chosen_logps, policy_logps): ...
class NotANumber:
    def forward(self, policy_chosen_logps):
        return policy_chosen_logps * float('nan'), policy_chosen_logps, policy_chosen_logps
    __call__ = forward
class Raises:
    def __call__(self, policy_chosen_logps):
        raise KeyError('x')
    forward = __call__
LOSSES = {'flat': 'Flat', 'odd': Odd, 'both': 'Both', 'nan': 'NotANumber', 'raises': Raises}
"""


@pytest.fixture
def options(chain, starter):
    return (
        STAGE, '--model_name_or_path', chain / 'finetune', '--datasets', f'jsonl:8/-1:{starter / "train.jsonl"}',
        '--per_device_train_batch_size', 4, '--lr', 1e-3, '--log_type', 'none', '--bf16', False, '--max_length', 96,
    )  # fmt: skip


def losses_of(directory: Path) -> list[float]:
    lines = (directory / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    return [json.loads(line)['train/loss'] for line in lines]


def test_the_class_and_the_registry_line_of_the_seed_run_as_they_stand_and_are_dpo(ends, options, tmp_path):
    (tmp_path / 'loss.py').write_text(SEED)
    plugin = ('--plugin', tmp_path / 'loss.py', '--loss', 'default')
    code, said = ends(*options, *plugin, '--loss_options', 'beta=0.1', '--output_dir', tmp_path / 'own')
    assert code == 0, said
    assert ends(*options, '--output_dir', tmp_path / 'ours')[0] == 0
    assert losses_of(tmp_path / 'own') == pytest.approx(losses_of(tmp_path / 'ours'), rel=1e-6)
    code, said = ends(*options, *plugin, '--output_dir', tmp_path / 'more')
    assert code == 2
    assert '--loss default: give its option beta, which has no default' in said


def test_the_example_of_a_custom_loss_runs_with_its_option(ends, options, tmp_path):
    plugin = ('--plugin', ROOT / 'examples/custom_loss.py', '--loss', 'squared', '--loss_options', 'target=3')
    assert ends(*options, *plugin, '--output_dir', tmp_path / 'o')[0] == 0
    assert losses_of(tmp_path / 'o')[0] == pytest.approx(9, rel=1e-3)  # D starts at 0


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (('--loss', 'simp0'), '--loss simp0: no such loss (did you mean simpo?)'),
        (
            ('--loss_options', 'beat=0.2'),
            '--loss_options beat=0.2: dpo has beta, length_normalize (did you mean beta?)',
        ),
        (('--loss_options', 'beta=much'), '--loss_options beta=much: float was expected'),
        (('--loss_options', 'length_normalize=1'), '--loss_options length_normalize=1: True or False was expected'),
        (('--loss_options', 'beta'), '--loss_options beta: dpo has beta, length_normalize'),
        (('--loss_options', 'beta=-1'), '--loss dpo beta=-1: beta must be above 0'),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(ends, options, tmp_path, more, message):
    code, said = ends(*options, *more, '--output_dir', tmp_path / 'o')
    assert code == 2
    assert message in said.splitlines()[-1]
    assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize(
    ('loss', 'message'),
    [
        ('flat', '--loss flat: losses of shape (1,) for 4 rows'),
        ('odd', '--loss odd: its forward names policy_choosen_logps (did you mean policy_chosen_logps?)'),
        ('both', '--loss both: names policy_chosen_logps of pairs and policy_logps of single answers'),
        ('nan', '--loss nan: a loss is not finite'),
        ('raises', "--loss raises: KeyError: 'x'"),
    ],
)
def test_a_loss_of_the_user_s_that_is_none_is_named(ends, options, tmp_path, loss, message):
    (tmp_path / 'broken.py').write_text(BROKEN)
    code, said = ends(*options, '--plugin', tmp_path / 'broken.py', '--loss', loss, '--output_dir', tmp_path / 'o')
    assert code == 2
    assert message in said


def test_a_reference_with_another_tokenizer_is_refused(ends, options, tiny, tmp_path):
    other = shutil.copytree(tiny, tmp_path / 'other')
    tokenizer = json.loads((other / 'tokenizer.json').read_text(encoding='utf-8'))
    (other / 'tokenizer.json').write_text(json.dumps({**tokenizer, 'normalizer': {'type': 'Lowercase'}}))
    code, said = ends(*options, '--ref_model_name_or_path', other, '--output_dir', tmp_path / 'o')
    assert code == 2
    assert f'--ref_model_name_or_path {other}: its tokenizer does not match' in said.splitlines()[-1]
    assert not (tmp_path / 'o').exists()


def test_the_reference_is_read_once_and_a_damaged_cache_is_computed_anew(ends, options, tmp_path, monkeypatch):
    monkeypatch.setenv('SAFE_ALIGN_CACHE', str(tmp_path / 'cache'))
    run = lambda name: ends(*options, '--output_dir', tmp_path / name)  # noqa: E731
    code, said = run('first')
    assert code == 0
    assert 'log-probabilities of the reference' in said
    (kept,) = (tmp_path / 'cache').glob('reference-*.safetensors')
    assert 'log-probabilities of the reference' not in run('second')[1]
    content = bytearray(kept.read_bytes())
    content[-3] ^= 1
    kept.write_bytes(content)
    assert 'are damaged; they are computed anew' in run('third')[1]
    assert losses_of(tmp_path / 'first') == losses_of(tmp_path / 'second') == losses_of(tmp_path / 'third')


def test_without_a_reference_none_is_read(ends, options, tmp_path, monkeypatch):
    monkeypatch.setenv('SAFE_ALIGN_CACHE', str(tmp_path / 'cache'))
    code, said = ends(*options, '--loss', 'simpo', '--output_dir', tmp_path / 'o')
    assert code == 0, said
    assert not list((tmp_path / 'cache').glob('reference-*'))
    assert 'log-probabilities' not in said


def test_a_loss_runs_in_a_notebook():
    losses, chosen, _ = LOSSES['dpo'](beta=0.5)(
        *(torch.tensor([x], dtype=torch.float64) for x in (-1, -2, -3, -3, 4, 4))
    )
    assert losses.item() == pytest.approx(0.4740769841801067)
    assert chosen.item() == 1
