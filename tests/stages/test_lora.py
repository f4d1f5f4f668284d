"""Stages that train adapters: what they leave, what reads it, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip('peft')

from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from safe_align.checkpoint import verify
from safe_align.evaluate.certification.lineage import trace
from safe_align.models import saving
from safe_align.ownership import content_of

COMMON = ('--log_type', 'none', '--bf16', False, '--max_length', 64)
LORA = ('--lora_r', 4, '--lora_dropout', 0.1)
TIMED = {'safe_align.json', 'arguments.json'}


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Where the directories of all calls are, each under its name."""
    return tmp_path_factory.mktemp('lora')


@pytest.fixture(scope='module')
def calls(tiny, starter, root) -> dict[str, tuple]:
    """How each stage is called, with adapters on `tiny`."""
    rows, prompts = (f'jsonl:{n}/-1:{starter / "train.jsonl"}' for n in (16, 8))
    fixed = ('--model_name_or_path', tiny, '--datasets', rows, '--lr', 1e-2, '--per_device_train_batch_size', 4)
    return {
        'finetune': ('finetune', *fixed, *LORA, '--save_interval', 2),
        'merged': ('finetune', *fixed, *LORA, '--save_interval', 2, '--merge_lora'),
        'preference': ('algorithms.preference', *fixed, *LORA),
        'reward': ('values.reward', *fixed, *LORA),
        'cost': ('values.cost', *fixed, *LORA),
        'ppo_lag': ('algorithms.ppo_lag', '--actor_model_name_or_path', tiny, '--datasets', prompts, *LORA[:2],
                    '--reward_model_name_or_path', root / 'reward', '--cost_model_name_or_path', root / 'cost',
                    '--max_new_tokens', 8, '--per_device_prompt_batch_size', 4, '--per_device_train_batch_size', 4,
                    '--actor_lr', 1e-2, '--critic_lr', 1e-2),
    }  # fmt: skip


@pytest.fixture(scope='module')
def made(stages, calls, root) -> Path:
    """The folder with the directories of all of them."""
    for name, (module, *options) in calls.items():
        code, said = stages.run(f'safe_align.{module}', *options, *COMMON, '--output_dir', root / name)
        assert code == 0, f'{name}:\n{said}'
    return root


def lines_of(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=torch.arange(20, 60)[None]).logits


@pytest.mark.parametrize('name', ['finetune', 'preference', 'ppo_lag'])
def test_a_directory_holds_an_adapter_that_peft_alone_opens_on_the_base_it_names(name, made, tiny):
    assert 'config.json' not in verify(made / name)
    assert (made / name / 'adapter_model.safetensors').stat().st_size < (tiny / 'model.safetensors').stat().st_size / 5
    base = json.loads((made / name / 'safe_align.json').read_text())['base']
    assert (base['path'], base['hash']) == (str(tiny), content_of(str(tiny)))
    opened = logits(AutoPeftModelForCausalLM.from_pretrained(made / name))
    assert 1e-3 < (opened - logits(AutoModelForCausalLM.from_pretrained(tiny))).abs().max() < 5
    assert AutoTokenizer.from_pretrained(made / name).chat_template


def test_merged_it_is_an_ordinary_model_with_the_same_logits(made, tiny):
    assert not (made / 'merged/adapter_config.json').exists()
    assert not (made / 'merged/adapter').exists()
    assert 'base' not in json.loads((made / 'merged/safe_align.json').read_text())
    ours, theirs = (
        logits(auto.from_pretrained(made / name))
        for auto, name in ((AutoModelForCausalLM, 'merged'), (AutoPeftModelForCausalLM, 'finetune'))
    )
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert load_file(made / 'merged/model.safetensors').keys() == load_file(tiny / 'model.safetensors').keys()


def test_ppo_lag_starts_at_the_reference_and_at_a_ratio_of_one(made):
    first, *_, last = lines_of(made / 'ppo_lag')
    assert first['train/kl_divergence'] == 0
    assert first['train/ratio'] == 1
    assert last['train/kl_divergence'] != 0


def test_a_killed_run_goes_on_to_the_same_bytes_from_checkpoints_of_the_adapter_alone(stages, calls, made, tmp_path):
    module, *options = calls['finetune']
    command = (f'safe_align.{module}', *options, *COMMON, '--output_dir', tmp_path / 'run')
    stage = stages.start(*command, dies_at=('.step-4.partial', 1))
    assert stage.wait() == -signal.SIGKILL, stage.said
    held = load_file(tmp_path / 'run/checkpoints/step-2/model.safetensors')
    assert held
    assert all('.lora_' in name for name in held)
    code, said = stages.run(*command)
    assert code == 0, said
    assert 'goes on from step 2' in said
    ours, theirs = verify(tmp_path / 'run'), verify(made / 'finetune')
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= TIMED


def test_adapters_are_models_to_every_stage_that_reads_one(made, stages, starter, tmp_path):
    rows = ('--datasets', f'jsonl:4/-1:{starter / "test.jsonl"}')
    tuned, scorers = (
        made / 'finetune',
        ('--reward_model_name_or_path', made / 'reward', '--cost_model_name_or_path', made / 'cost'),
    )
    short = ('--max_new_tokens', 4)
    runs = {
        'algorithms.preference': ('--model_name_or_path', tuned, *rows),
        'values.reward': ('--model_name_or_path', made / 'reward', *rows),
        'evaluate.arena': ('--red_corner_model_name_or_path', tuned, '--blue_corner_model_name_or_path',
                           made / 'ppo_lag', *scorers, *rows, *short),
        'evaluate.kl': ('--model_name_or_path', made / 'ppo_lag', '--ref_model_name_or_path', tuned, *rows, *short),
        'evaluate.safety_test': ('--model_name_or_path', made / 'ppo_lag', *scorers[2:], *rows, *short, '--claim',
                                 'mean_cost', '--range', -100, 100, '--threshold', 90, '--ledger', tmp_path / 'ledger'),
    }  # fmt: skip
    for stage, options in runs.items():
        code, said = stages.run(f'safe_align.{stage}', *options, *COMMON, '--output_dir', tmp_path / stage)
        assert code in (0, 1 + 2 * stage.endswith('test')), said
    assert (tmp_path / 'algorithms.preference/model.safetensors').is_file()
    found = {one.path for one in trace([('--model_name_or_path', str(made / 'ppo_lag'))])}
    assert {str(made / name) for name in ('ppo_lag', 'reward', 'cost')} < found


def test_a_new_adapter_does_not_start_from_an_adapter(fails, calls, made):
    for name in ('preference', 'ppo_lag'):
        module, *options = calls[name]
        flag = '--actor_model_name_or_path' if name == 'ppo_lag' else '--model_name_or_path'
        said = fails(module, *options, *COMMON, flag, made / 'finetune')
        assert f'{flag} {made / "finetune"}: an adapter, and no base for another one' in said


def test_an_adapter_whose_base_has_changed_is_refused(fails, sft, made, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / tiny.name)
    spoilt = shutil.copytree(made / 'finetune', tmp_path / 'spoilt')
    for name in ('manifest.json', '.lock'):
        (spoilt / name).unlink()
    config = json.loads((spoilt / 'adapter_config.json').read_text())
    (spoilt / 'adapter_config.json').write_text(json.dumps(config | {'base_model_name_or_path': f'/gone/{tiny.name}'}))
    (tmp_path / tiny.name / 'generation_config.json').write_text('{}')
    said = fails(*sft, '--model_name_or_path', spoilt)
    assert f'--model_name_or_path {spoilt}: its base {tmp_path / tiny.name} has changed since it was trained' in said


@pytest.mark.parametrize('flag', ['lora_alpha', 'lora_dropout', 'lora_target_modules', 'load_in_4bit', 'merge_lora'])
def test_what_says_how_an_adapter_is_made_needs_one(flag, fails, sft):
    assert f'--{flag}: needs --lora_r' in fails(*sft, f'--{flag}', *(('0',) if flag.startswith('lora') else ()))


def test_targets_that_match_nothing_are_refused_before_anything_is_written(fails, calls, made, tmp_path):
    for call, name in (('finetune', 'c_attn'), ('ppo_lag', 'lm_head')):
        said = fails(*calls[call], *COMMON, '--lora_r', 4, '--lora_target_modules', 'q_proj', name)
        assert (
            f'--lora_target_modules {name}: LlamaForCausalLM has no linear layer of this name within it; it has' in said
        )
        assert not (tmp_path / 'out').exists()


def test_without_a_package_one_line_says_how_to_get_it(fails, sft, made, monkeypatch):
    absent, find = {'bitsandbytes'}, importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *rest: None if name in absent else find(name, *rest))
    said = fails(*sft, '--lora_r', 4, '--load_in_4bit')
    assert "--load_in_4bit: needs bitsandbytes; pip install 'safe_align[qlora]'" in said
    absent.add('peft')
    for options in (('--lora_r', 4), ('--model_name_or_path', made / 'finetune')):
        assert "needs peft; pip install 'safe_align[lora]'" in fails(*sft, *options)


def test_4_bits_are_refused_where_bitsandbytes_does_not_run(fails, sft, monkeypatch, tmp_path):
    broken = SimpleNamespace(functional=SimpleNamespace())  # as where it has no library for the machine
    monkeypatch.setitem(sys.modules, 'bitsandbytes', broken)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda *_: True)
    said = fails(*sft, '--lora_r', 4, '--load_in_4bit')
    assert '--load_in_4bit: bitsandbytes does not run here: ' in said
    assert not (tmp_path / 'out').exists()


def test_4_bits_are_merged_as_they_were_trained_with(ends, sft, tmp_path):
    pytest.importorskip('bitsandbytes')
    options = ('--lora_r', 4, '--load_in_4bit', '--merge_lora', '--lr', 1e-2)
    assert ends(*sft, *options)[0] == 0  # their logits were compared
    config = json.loads((tmp_path / 'out/config.json').read_text())
    assert 'quantization_config' not in config
    assert logits(AutoModelForCausalLM.from_pretrained(tmp_path / 'out')).isfinite().all()


def test_a_merged_model_that_says_something_else_is_not_written_but_its_adapter_is_kept(
    ends, sft, monkeypatch, tmp_path
):
    monkeypatch.setattr(saving, 'AGREEMENT', -1.0)
    code, said = ends(*sft, '--lora_r', 4, '--merge_lora')
    assert code == 2
    assert f'it is not written; the adapter is in {tmp_path / "out/adapter"}' in said
    assert not {'manifest.json', 'config.json'} & {path.name for path in (tmp_path / 'out').iterdir()}
    assert logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path / 'out/adapter')).isfinite().all()
    monkeypatch.undo()
    assert ends(*sft, '--lora_r', 4, '--merge_lora', '--overwrite')[0] == 0
    assert not (tmp_path / 'out/adapter').exists()
