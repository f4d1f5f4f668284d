"""A score model opens in plain `transformers` with the same scores; safe-rlhf's own open as they are."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from safe_align.config import UserError
from safe_align.datasets.packing import pack
from safe_align.engine import Engine, Placement
from safe_align.models.loading import load_tokenizer
from safe_align.models.policy import save_model
from safe_align.models.score import Normalizer, load_score_model, pad_apart

FLAG = '--reward_model_name_or_path'
TEXTS = ['a', 'Draft a welcome card for a family.', 'Ideas for decorating, please. We have paper and some candles.']


def _sequences(tokenizer) -> list[list[int]]:
    return [[*tokenizer(text)['input_ids'], tokenizer.eos_token_id] for text in TEXTS]


def _scores(model, sequences: list[list[int]]) -> torch.Tensor:
    """At the end of each sequence, from one packed row."""
    batch = pack([(np.array(ids), np.zeros(len(ids), bool)) for ids in sequences])
    ends = batch.ends
    with torch.no_grad():
        return model.eval()(batch.tokens, batch.positions, batch.layout, ends)


def _padded_scores(path, sequences: list[list[int]]) -> torch.Tensor:
    """What a user of `transformers` gets from right-padded batches."""
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side='right')
    assert model.config.num_labels == 1
    assert model.config.pad_token_id == tokenizer.pad_token_id
    inputs = tokenizer.pad({'input_ids': sequences}, return_tensors='pt')
    with torch.no_grad():
        return model(**inputs).logits[:, 0].float()


@pytest.mark.parametrize('name', ['tiny', 'gpt2', 'qwen2', 'mistral', 'gemma2', 'opt', 'phi'])
def test_a_saved_model_opens_in_transformers_with_the_same_scores(name, tiny, family, tmp_path):
    path = tiny if name == 'tiny' else family(name)
    tokenizer = load_tokenizer(str(path), FLAG)
    model = load_score_model(str(path), 'reward', FLAG, tokenizer, fresh=True)
    torch.nn.init.normal_(model.model.score.weight, std=0.1)
    sequences = _sequences(tokenizer)
    scores = _scores(model, sequences)
    assert scores.dtype == torch.float32
    assert scores.std() > 1e-3
    save_model(Engine(model, Placement()), tokenizer, False, tmp_path)
    torch.testing.assert_close(_padded_scores(tmp_path, sequences), scores, rtol=0, atol=2e-6)
    again = load_score_model(str(tmp_path), 'reward', FLAG, load_tokenizer(str(tmp_path), FLAG))
    torch.testing.assert_close(_scores(again, sequences), scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize('special', [{}, {'unk_token': '<|im_end|>', 'bos_token': '<|im_end|>'}])
def test_scores_are_the_same_where_the_source_pads_with_its_end(special, tiny, tmp_path):
    source = tmp_path / 'source'
    shutil.copytree(tiny, source)
    AutoTokenizer.from_pretrained(tiny, pad_token='<|im_end|>', **special).save_pretrained(source)
    tokenizer = load_tokenizer(str(source), FLAG)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    model = load_score_model(str(source), 'cost', FLAG, tokenizer, fresh=True)
    torch.nn.init.normal_(model.model.score.weight, std=0.1)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    sequences = _sequences(tokenizer)
    save_model(Engine(model, Placement()), tokenizer, False, tmp_path / 'out')
    scores = _scores(model, sequences)
    torch.testing.assert_close(_padded_scores(tmp_path / 'out', sequences), scores, rtol=0, atol=2e-6)


def test_pad_apart_leaves_a_good_pad_alone_and_finds_one_where_there_is_none(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    pad = tokenizer.pad_token_id
    assert pad_apart(tokenizer) == tokenizer.pad_token_id == pad
    tokenizer.pad_token = None
    assert pad_apart(tokenizer) == tokenizer.unk_token_id
    bare = AutoTokenizer.from_pretrained(tiny, pad_token=None, unk_token=None, bos_token=None)
    assert pad_apart(bare) not in (None, bare.eos_token_id)


def test_half_precision_is_what_is_written(tiny, tmp_path):
    tokenizer = load_tokenizer(str(tiny), FLAG)
    model = load_score_model(str(tiny), 'reward', FLAG, tokenizer, fresh=True)
    torch.nn.init.normal_(model.model.score.weight, std=0.1)
    save_model(Engine(model, Placement()), tokenizer, True, tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / 'model.safetensors').values()} == {torch.bfloat16}
    assert json.loads((tmp_path / 'config.json').read_text())['dtype'] == 'bfloat16'
    assert next(model.parameters()).dtype == torch.float32
    sequences = _sequences(tokenizer)
    torch.testing.assert_close(_padded_scores(tmp_path, sequences), _scores(model, sequences), rtol=0, atol=0.1)


def _safe_rlhf(tiny, path, score_type: str, as_bin: bool, **config) -> tuple[torch.Tensor, torch.Tensor]:
    """Write a checkpoint as safe-rlhf does, and return the head's weight and bias."""
    body = AutoModel.from_pretrained(tiny)
    weight = torch.linspace(-1, 1, body.config.hidden_size)[None]
    bias = torch.tensor([0.25])
    weights = {f'model.{name}': tensor.contiguous() for name, tensor in body.state_dict().items()}
    weights |= {'score_head.weight': weight, 'score_head.bias': bias}
    AutoTokenizer.from_pretrained(tiny).save_pretrained(path)
    options = {
        **json.loads((tiny / 'config.json').read_text()), 'architectures': ['LlamaForScore'],
        'score_dim': 1, 'score_bias': True, 'score_type': score_type, 'do_normalize': False,
        'normalizer_type': 'RunningMeanStd', 'momentum': None, 'mean': None, 'var': None, **config,
    }  # fmt: skip
    (path / 'config.json').write_text(json.dumps(options))
    if as_bin:
        torch.save(weights, path / 'pytorch_model.bin')
    else:
        save_file(weights, path / 'model.safetensors', metadata={'format': 'pt'})
    return weight, bias


@pytest.mark.parametrize('as_bin', [False, True])
@pytest.mark.parametrize('kind', ['reward', 'cost'])
def test_a_safe_rlhf_checkpoint_opens_as_it_is(kind, as_bin, tiny, tmp_path):
    weight, bias = _safe_rlhf(tiny, tmp_path, kind, as_bin, do_normalize=True, mean=[-2.0], var=[9.0])
    tokenizer = load_tokenizer(str(tmp_path), FLAG)
    model = load_score_model(str(tmp_path), kind, FLAG, tokenizer)
    sequences, body = _sequences(tokenizer), AutoModel.from_pretrained(tiny).eval()
    with torch.no_grad():
        hidden = torch.stack([body(input_ids=torch.tensor([ids])).last_hidden_state[0, -1] for ids in sequences])
    scores = _scores(model, sequences)
    torch.testing.assert_close(scores, hidden @ weight[0] + bias, rtol=1e-5, atol=1e-5)
    assert model.normalizer == Normalizer(-2.0, 3.0, kind)
    # a reward is shifted by -2 and divided by 3; a cost is divided by 3, so that its zero stays where it is
    normalised = (scores + 2) / 3 if kind == 'reward' else scores / 3
    torch.testing.assert_close(model.normalizer(scores), normalised)
    assert not {name for name, parameter in model.named_parameters() if parameter.dtype != torch.float32}


def test_a_safe_rlhf_checkpoint_without_moments_is_not_normalised(tiny, tmp_path):
    _safe_rlhf(tiny, tmp_path, 'reward', False)
    model = load_score_model(str(tmp_path), 'reward', FLAG, load_tokenizer(str(tmp_path), FLAG))
    assert model.normalizer == Normalizer(0.0, 1.0, 'reward')


def test_a_checkpoint_without_its_head_is_refused(tiny, tmp_path):
    _safe_rlhf(tiny, tmp_path, 'reward', False)
    weights = load_file(tmp_path / 'model.safetensors')
    body = {name: tensor for name, tensor in weights.items() if name.startswith('model.')}
    save_file(body, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(UserError, match='no score_head among its weights'):
        load_score_model(str(tmp_path), 'reward', FLAG, load_tokenizer(str(tmp_path), FLAG))


def test_a_cost_model_is_no_reward_model(tiny, tmp_path):
    tokenizer = load_tokenizer(str(tiny), FLAG)
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    model = load_score_model(str(tiny), 'cost', FLAG, tokenizer, fresh=True)
    save_model(Engine(model, Placement()), tokenizer, False, ours)
    (ours / 'safe_align.json').write_text('{"kind": "cost"}')
    theirs.mkdir()
    _safe_rlhf(tiny, theirs, 'cost', False)
    for path in (ours, theirs):
        load_score_model(str(path), 'cost', FLAG, tokenizer)
        with pytest.raises(UserError, match=f'^{FLAG} {path}: a cost model, where a reward model was expected$'):
            load_score_model(str(path), 'reward', FLAG, tokenizer)
    with pytest.raises(UserError, match='a cost model, where a reward model was expected'):
        load_score_model(str(ours), 'reward', FLAG, tokenizer, fresh=True)  # nor is one made of it by mistake


def test_a_language_model_is_no_score_model(tiny):
    with pytest.raises(UserError, match=f'{tiny}: LlamaForCausalLM, where a reward model was expected'):
        load_score_model(str(tiny), 'reward', FLAG, load_tokenizer(str(tiny), FLAG))


def test_a_stages_normaliser_comes_back_from_its_record(tiny, tmp_path):
    tokenizer = load_tokenizer(str(tiny), FLAG)
    model = load_score_model(str(tiny), 'reward', FLAG, tokenizer, fresh=True)
    save_model(Engine(model, Placement()), tokenizer, False, tmp_path)
    (tmp_path / 'safe_align.json').write_text(
        '{"kind": "reward", "normalizer": {"mean": 1.5, "std": 2.0, "kind": "reward"}}'
    )
    assert load_score_model(str(tmp_path), 'reward', FLAG, tokenizer).normalizer == Normalizer(1.5, 2.0, 'reward')
