"""A score model judges a response in its own words: its tokenizer, its template, and the end of the text."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from safe_align.config import UserError
from safe_align.datasets.packing import pack
from safe_align.engine import Engine, OptimizerOptions, Placement
from safe_align.models.loading import load_policy, load_tokenizer
from safe_align.models.policy import response_log_probs, save_model
from safe_align.models.score import Normalizer, load_score_model
from safe_align.models.scorer import Conversation, check_scorer, load_scorer
from safe_align.templates import Template

FLAG = '--reward_model_name_or_path'
TURNS = [['How do I sharpen a knife?'], ['Hi', 'Hello there.', 'What is a good tea?']]
TEXTS = ['Use a stone, and water.', 'Green tea.']


@pytest.fixture(scope='module')
def policy(tiny):
    return Template(load_tokenizer(str(tiny), '--actor_model_name_or_path'))


@pytest.fixture(scope='module')
def reward_model(tiny, tmp_path_factory):
    """With the tokenizer and template of `tiny`."""
    torch.manual_seed(0)
    tokenizer, place = load_tokenizer(str(tiny), FLAG), tmp_path_factory.mktemp('reward')
    model = load_score_model(str(tiny), 'reward', FLAG, tokenizer, fresh=True)
    torch.nn.init.normal_(model.model.score.weight, std=0.1)
    save_model(Engine(model, Placement()), tokenizer, False, place)
    return place


@pytest.fixture(scope='module')
def foreign(starter, tmp_path_factory):
    """A reward model with a tokenizer of its own, of 300 tokens, and no chat template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=['</s>', '<pad>'], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator((starter / 'train.jsonl').read_text(encoding='utf-8').splitlines(), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token='</s>', pad_token='<pad>')
    torch.manual_seed(0)
    shape = {'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 2, 'num_attention_heads': 4}
    model = LlamaForSequenceClassification(LlamaConfig(vocab_size=300, num_labels=1, pad_token_id=1, **shape))
    torch.nn.init.normal_(model.score.weight)
    place = tmp_path_factory.mktemp('foreign')
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def conversations(policy: Template, ended: bool = True) -> list[Conversation]:
    made = []
    for turns, text in zip(TURNS, TEXTS, strict=True):
        response = policy.response(text)[: None if ended else -1]
        made.append(Conversation(turns, policy.prompt(turns), response, policy.text(response)))
    return made


def in_transformers(place, sequences: list[list[int]]) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(place).eval()
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits.item() for ids in sequences]


@pytest.mark.parametrize('budget', [20, 4096])
def test_with_the_same_tokenizer_and_template_the_policy_s_own_ids_are_scored(reward_model, policy, budget):
    """What was cut off is read with an end, which is where the model has learnt to read."""
    scorer = load_scorer(str(reward_model), 'reward', FLAG, Placement(), policy, budget=budget)
    assert scorer.same_ids
    for ended in (True, False):
        judged = conversations(policy, ended)
        end = [] if ended else [policy.end_id]
        assert all((c.response[-1] == policy.end_id) == ended for c in judged)
        expected = in_transformers(reward_model, [[*c.prompt, *c.response, *end] for c in judged])
        assert scorer(judged).tolist() == pytest.approx(expected, abs=2e-6)
    assert not any(parameter.requires_grad for parameter in scorer.engine.module.parameters())


def test_a_table_of_positions_needs_room_for_the_end_of_what_was_cut_off(family, tmp_path):
    source = family('gpt2', n_positions=64)
    tokenizer = load_tokenizer(str(source), FLAG)
    model = load_score_model(str(source), 'cost', FLAG, tokenizer, fresh=True)
    save_model(Engine(model, Placement()), tokenizer, False, tmp_path)
    check_scorer(str(tmp_path), 'cost', FLAG, 63)
    with pytest.raises(UserError, match='has positions for 64 tokens, and what is cut off is scored with a token more'):
        check_scorer(str(tmp_path), 'cost', FLAG, 64)


def test_another_tokenizer_s_model_reads_the_text_by_its_own_template(foreign, policy):
    scorer = load_scorer(str(foreign), 'reward', FLAG, Placement(), policy, budget=4096)
    assert not scorer.same_ids
    template = Template(load_tokenizer(str(foreign), FLAG))
    assert not template.is_chat
    sequences = [[*template.prompt(turns), *template.response(text)] for turns, text in zip(TURNS, TEXTS, strict=True)]
    written = template.tokenizer.decode(sequences[1])
    assert written == (
        'BEGINNING OF CONVERSATION: USER: Hi ASSISTANT:Hello there.</s>'
        'USER: What is a good tea? ASSISTANT:Green tea.</s>'
    )
    scores = scorer(conversations(policy))
    assert scores.tolist() == pytest.approx(in_transformers(foreign, sequences), abs=2e-6)
    assert scores[0] != scores[1]


def test_a_model_is_read_with_the_template_of_its_own_training(reward_model, policy, tmp_path):
    """The policy's tokenizer has a chat template; the reward model was trained on safe-rlhf's format all the same."""
    place = tmp_path / 'reward'
    shutil.copytree(reward_model, place)
    Template(load_tokenizer(str(place), FLAG), 'safe-rlhf').tokenizer.save_pretrained(place)
    scorer = load_scorer(str(place), 'reward', FLAG, Placement(), policy, budget=4096)
    assert not scorer.same_ids
    assert not scorer.template.is_chat
    same = Template(policy.tokenizer, 'safe-rlhf')
    assert load_scorer(str(place), 'reward', FLAG, Placement(), same, budget=4096).same_ids


def test_scores_are_normalised_where_that_is_asked_for(reward_model, policy, tmp_path):
    place = tmp_path / 'reward'
    shutil.copytree(reward_model, place)
    scale = {'mean': 0.5, 'std': 2.0, 'kind': 'reward'}
    (place / 'safe_align.json').write_text(json.dumps({'kind': 'reward', 'normalizer': scale}))
    raw, scaled = (
        load_scorer(str(place), 'reward', FLAG, Placement(), policy, budget=4096, normalize=on)(conversations(policy))
        for on in (False, True)
    )
    torch.testing.assert_close(scaled, (raw - 0.5) / 2)
    # a cost keeps its sign: it is scaled and not shifted
    torch.testing.assert_close(Normalizer(0.5, 2.0, 'cost')(raw), raw / 2)


def test_a_model_that_lacks_weights_is_refused(reward_model, tmp_path):
    from safetensors.torch import load_file, save_file

    place = tmp_path / 'reward'
    shutil.copytree(reward_model, place)
    kept = {name: value for name, value in load_file(place / 'model.safetensors').items() if 'layers.1.mlp' not in name}
    save_file(kept, place / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(UserError, match=r'weights are missing: model\.layers\.1\.mlp\.down_proj\.weight and 2 more'):
        load_score_model(str(place), 'reward', FLAG, load_tokenizer(str(place), FLAG))


def test_ppo_takes_a_reward_model_with_another_tokenizer_beside_a_critic_with_the_policy_s(
    build, foreign, reward_model
):
    algorithm, batches, _ = build(
        reward_model_name_or_path=str(foreign), reward_critic_model_name_or_path=str(reward_model)
    )
    assert [signal.scorer.same_ids for signal in algorithm.signals] == [False, True]
    collected = algorithm.collect(0, batches.step(0))
    sampled = algorithm.rollouts.sample([row for micro in batches.step(0) for row in micro.rows], 0)
    template = Template(load_tokenizer(str(foreign), FLAG))
    sequences = [
        [*template.prompt(one.conversation.turns), *template.response(one.conversation.text)] for one in sampled
    ]
    expected = in_transformers(foreign, sequences)
    assert collected.metrics['train/reward'] == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_a_frozen_model_in_bfloat16_holds_its_matrices_in_it_and_computes_what_autocast_would(tiny, reward_model):
    batch = pack([(np.arange(5, 25), np.arange(20) > 6), (np.arange(30, 41), np.arange(11) > 3)])
    options = OptimizerOptions(1e-3, 0.0, 'constant', 0.0, 1.0, 1)
    frozen, trained = (Engine(load_policy(str(tiny)), Placement(bf16=True), one) for one in (None, options))
    with torch.no_grad():
        assert torch.equal(response_log_probs(frozen, batch), response_log_probs(trained, batch))
    widths = {name: p.dtype for name, p in frozen.module.named_parameters() if p.ndim == 2}
    assert {dtype for name, dtype in widths.items() if 'embed' not in name} == {torch.bfloat16}
    policy = Template(load_tokenizer(str(tiny), FLAG))
    scorer = load_scorer(str(reward_model), 'reward', FLAG, Placement(bf16=True), policy, budget=99)
    assert scorer.engine.module.model.score.weight.dtype == torch.float32
