"""Generation is `transformers`' own, token for token; a response depends on its seed, key and number alone."""

from __future__ import annotations

import collections
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from safe_align import generation
from safe_align.datasets.packing import pack
from safe_align.engine import Engine, Placement
from safe_align.generation import Response, Sampling, generate, stream
from safe_align.models.loading import load_policy
from safe_align.models.policy import response_log_probs, save_model
from safe_align.templates import Template

QUESTIONS = [
    'Draft a welcome card.', 'Ideas for decorating the living room for a birthday, please.', 'Why is the sky blue?',
    'How do I sharpen a kitchen knife on a stone that I have not used for years?', 'Hi', 'What is a good tea?',
]  # fmt: skip
FAMILIES = ['tiny', 'llama', 'gpt2', 'qwen2', 'mistral', 'gemma2']  # gemma2's attention is not ours: it falls back
DRAW = Sampling(max_new_tokens=24, temperature=0.8, num_samples=2, seed=3, batch_size=128)


@pytest.fixture(scope='module')
def template(tiny):
    return Template(AutoTokenizer.from_pretrained(tiny))


@pytest.fixture(scope='module')
def prompts(template):
    return [template.prompt([question]) for question in QUESTIONS]


@pytest.fixture(scope='module')
def tiny_policy(tiny):
    return load_policy(str(tiny))


def same(got: list[Response], expected: list[Response], tolerance: float = 1e-5) -> None:
    """The same tokens, and the same log-probabilities but for the order in which products are added up."""
    assert [one[:3] for one in got] == [one[:3] for one in expected]
    assert [one.is_finished for one in got] == [one.is_finished for one in expected]
    for one, other in zip(got, expected, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=tolerance)


@pytest.mark.parametrize('name', FAMILIES)
def test_greedy_decoding_is_that_of_transformers_token_for_token(name, tiny, family, template, prompts):
    path = tiny if name == 'tiny' else family(name)
    plain = AutoModelForCausalLM.from_pretrained(path).eval()
    responses = generate(load_policy(str(path)), prompts, Sampling(20, temperature=0), template.stop_ids)
    for prompt, response in zip(prompts, responses, strict=True):
        ids = plain.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=20, eos_token_id=template.stop_ids, pad_token_id=0
        )
        assert response.ids == ids[0, len(prompt) :].tolist()
        assert response.is_finished == (response.ids[-1] in template.stop_ids)


@pytest.mark.parametrize('name', FAMILIES)
def test_log_probs_are_those_of_a_packed_forward(name, tiny, family, template, prompts):
    model = load_policy(str(tiny if name == 'tiny' else family(name)))
    responses = generate(model, prompts, DRAW, template.stop_ids)
    assert len({tuple(one.ids) for one in responses}) > len(prompts)
    sequences = []
    for one in responses:
        ids = [*prompts[one.prompt], *one.ids]
        sequences.append((np.array(ids), np.arange(len(ids)) >= len(prompts[one.prompt])))
    with torch.no_grad():
        expected = response_log_probs(Engine(model, Placement()), pack(sequences), DRAW.temperature)
    drawn = torch.tensor([value for one in responses for value in one.log_probs])
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-5)


def test_a_response_depends_on_its_seed_key_and_number_alone(tiny_policy, template, prompts):
    keys = [11, 22, 33, 44, 55, 66]

    def draw(which=range(6), **changes):
        some, some_keys = [prompts[n] for n in which], [keys[n] for n in which]
        responses = generate(tiny_policy, some, replace(DRAW, **changes), template.stop_ids, some_keys)
        return {(keys[list(which)[one.prompt]], one.sample): (one.ids, one.is_finished) for one in responses}

    expected = draw()
    assert draw(batch_size=1) == draw(batch_size=5) == draw(which=[4, 2, 0, 5, 1, 3]) == expected
    assert draw(which=[2]) == {name: value for name, value in expected.items() if name[0] == 33}
    assert {name: value for name, value in draw(num_samples=5).items() if name[1] < 2} == expected
    assert draw(seed=4) != expected
    assert len({tuple(ids) for ids, _ in draw(which=[1], num_samples=5).values()}) == 5


def test_without_keys_a_prompt_s_place_is_its_key(tiny_policy, template, prompts):
    given = generate(tiny_policy, prompts, DRAW, template.stop_ids, list(range(6)))
    same(generate(tiny_policy, prompts, DRAW, template.stop_ids), given, 0)


@pytest.mark.parametrize('name', ['tiny', 'gpt2', 'qwen2', 'mistral'])
@pytest.mark.parametrize('temperature', [0.0, 0.8])
def test_the_backend_of_transformers_gives_the_same(name, temperature, tiny, family, template, prompts):
    model = load_policy(str(tiny if name == 'tiny' else family(name)))
    sampling = replace(DRAW, temperature=temperature, batch_size=5)
    ours = generate(model, prompts, sampling, template.stop_ids)
    before = model.config._attn_implementation
    same(generate(model, prompts, replace(sampling, backend='hf'), template.stop_ids), ours)
    assert model.config._attn_implementation == before


def test_the_generation_settings_of_a_model_change_nothing(tiny, template, prompts):
    model = load_policy(str(tiny))
    expected = generate(model, prompts, DRAW, template.stop_ids)
    model.generation_config = GenerationConfig(repetition_penalty=5.0, min_new_tokens=24, top_k=1, do_sample=True)
    settings = model.generation_config
    same(generate(model, prompts, replace(DRAW, backend='hf'), template.stop_ids), expected)
    assert model.generation_config is settings


def test_rows_that_end_leave_and_the_rest_is_unchanged(tiny_policy, template, prompts, monkeypatch):
    sampling = replace(DRAW, max_new_tokens=40)
    rows = []
    forward = tiny_policy.forward

    def watched(*args, **kwargs):
        rows.append(kwargs['input_ids'].shape[0])
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny_policy, 'forward', watched)
    free = generate(tiny_policy, prompts, sampling, [])
    assert rows == [1] + [12] * 39  # a packed prefill, and 39 steps of all rows
    assert all(len(one.ids) == 40 and not one.is_finished for one in free)
    rows.clear()
    # whatever token a response is stopped by, it is the free one up to there
    stop = [collections.Counter(token for one in free for token in one.ids).most_common(1)[0][0]]
    stopped = generate(tiny_policy, prompts, sampling, stop)
    for one, whole in zip(stopped, free, strict=True):
        end = whole.ids.index(stop[0]) + 1 if stop[0] in whole.ids else 40
        assert one.ids == whole.ids[:end]
        assert one.log_probs == pytest.approx(whole.log_probs[:end], abs=1e-5)
        assert one.is_finished == (stop[0] in whole.ids)
    assert rows[0] == 1
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < 12


def test_the_samples_of_a_prompt_share_its_prefill(tiny_policy, template, prompts, monkeypatch):
    shapes = []
    forward = tiny_policy.forward

    def watched(*args, **kwargs):
        shapes.append(tuple(kwargs['input_ids'].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny_policy, 'forward', watched)
    generate(tiny_policy, prompts, replace(DRAW, num_samples=7, max_new_tokens=2), [])
    once = pack([(np.array(prompt), np.zeros(len(prompt))) for prompt in prompts]).tokens.shape
    assert once[1] < sum(map(len, prompts))  # the template begins each alike
    assert shapes == [once, (42, 1)]  # each prompt once; then a token of each sample


def test_a_response_is_cut_off_where_prompt_and_response_fill_the_length(tiny_policy, template, prompts):
    free = generate(tiny_policy, prompts, replace(DRAW, max_new_tokens=40), [])
    longest = max(map(len, prompts))
    for backend in ('builtin', 'hf'):
        sampling = replace(DRAW, max_new_tokens=40, max_length=longest + 3, backend=backend)
        stops = [] if backend == 'builtin' else [template.tokenizer.unk_token_id]  # never drawn by this model
        for one, whole in zip(generate(tiny_policy, prompts, sampling, stops), free, strict=True):
            assert one.ids == whole.ids[: longest + 3 - len(prompts[one.prompt])]
            assert not one.is_finished


def test_no_position_is_beyond_the_length(family, template):
    """GPT-2 has a table of positions: a row that waits for others to end must not run out of it."""
    model = load_policy(str(family('gpt2', n_positions=64)))
    prompts = [[5] * length for length in (62, 2, 3, 4, 5, 6, 7, 8)]  # one of eight is too few to close the ranks for
    responses = generate(model, prompts, Sampling(62, max_length=64), [])
    assert [len(one.ids) for one in responses] == [64 - len(prompt) for prompt in prompts]


def test_a_shorter_limit_gives_the_start_of_the_same_response(tiny_policy, template, prompts):
    whole = generate(tiny_policy, prompts, DRAW, template.stop_ids)
    short = generate(tiny_policy, prompts, replace(DRAW, max_new_tokens=5), template.stop_ids)
    for one, other in zip(short, whole, strict=True):
        assert one.ids == other.ids[:5]


def test_a_long_prefill_in_several_runs_gives_the_same(tiny_policy, template, prompts, monkeypatch):
    expected = generate(tiny_policy, prompts, DRAW, template.stop_ids)
    monkeypatch.setattr('safe_align.decoding.PREFILL', 30)
    same(generate(tiny_policy, prompts, DRAW, template.stop_ids), expected)


def test_a_response_ends_with_its_stop_token_and_one_that_is_cut_off_does_not(tiny_policy, template, prompts):
    responses = generate(tiny_policy, prompts, replace(DRAW, max_new_tokens=30), template.stop_ids)
    assert {one.is_finished for one in responses} == {True, False}
    for one in responses:
        assert (one.ids[-1] in template.stop_ids) == one.is_finished
        assert not set(one.ids[:-1]) & set(template.stop_ids)
        assert len(one.ids) == len(one.log_probs)
        assert one.is_finished or len(one.ids) == 30


def test_no_prompts_give_no_responses_and_the_mode_of_the_model_is_kept(tiny_policy, template, prompts):
    assert generate(tiny_policy, [], DRAW, template.stop_ids) == []
    for training in (True, False):
        tiny_policy.train(training)
        generate(tiny_policy, prompts[:1], replace(DRAW, max_new_tokens=1), template.stop_ids)
        assert tiny_policy.training == training


def test_the_random_numbers_of_a_response_are_its_own():
    numbers = {
        (seed, key, sample): generation._uniforms(replace(DRAW, seed=seed), key, sample).tobytes()
        for seed in (0, 1) for key in (0, 1, 2**64 - 1) for sample in (0, 1)
    }  # fmt: skip
    assert len(set(numbers.values())) == len(numbers)


@pytest.mark.parametrize('name', ['tiny', 'gemma2'])
def test_a_stream_tells_of_each_token_of_the_response_that_is_drawn_without_one(name, tiny, family, template, prompts):
    model = load_policy(str(tiny if name == 'tiny' else family(name)))
    for prompt, sampling, key in ((prompts[0], replace(DRAW, num_samples=1, max_length=40), 5), (prompts[4], DRAW, 2)):
        told: list[int] = []
        response = stream(model, prompt, sampling, template.stop_ids, key, told.append)
        assert told == response.ids
        assert response == generate(model, [prompt], replace(sampling, num_samples=1), template.stop_ids, [key])[0]


@pytest.mark.parametrize('name', ['tiny', 'gemma2'])
def test_what_is_raised_at_a_token_ends_a_stream_and_leaves_the_model_as_it_was(name, tiny, family, template, prompts):
    model, told = load_policy(str(tiny if name == 'tiny' else family(name))).train(), list[int]()
    before = (model.config._attn_implementation, model.generation_config)

    def drawn(token: int) -> None:
        told.append(token)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(model, prompts[3], DRAW, template.stop_ids, 0, drawn)
    assert len(told) == 3
    assert model.training
    assert before == (model.config._attn_implementation, model.generation_config)


def test_a_policy_is_saved_with_where_its_turns_end(tiny, tmp_path):
    """Others who open it would go on behind the answer, where a turn ends with another token than a text."""
    model, tokenizer = load_policy(str(tiny)), AutoTokenizer.from_pretrained(tiny)
    turn = tokenizer.eos_token_id
    for text in (tokenizer.eos_token, '<unk>'):
        tokenizer.eos_token = text
        place = tmp_path / text.strip('<|>')
        save_model(Engine(model, Placement()), tokenizer, False, place)
        ends = GenerationConfig.from_pretrained(place).eos_token_id
        assert ends == (turn if tokenizer.eos_token_id == turn else sorted([turn, tokenizer.eos_token_id]))
