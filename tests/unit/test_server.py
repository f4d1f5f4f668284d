"""Responses of a server: what is asked for, what is made of it, and a real server on loopback."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from servers import Scripted, chat, completion, error

from safe_align.config import UserError
from safe_align.laws import Law
from safe_align.models.loading import load_tokenizer
from safe_align.online.records import Drawn
from safe_align.online.sampling_run import chooser
from safe_align.online.server import respond, seed_of
from safe_align.remote.endpoint import Endpoint
from safe_align.remote.fields import Server
from safe_align.remote.journal import Journal
from safe_align.remote.judging import Judge
from safe_align.remote.questions import Pair
from safe_align.remote.verdicts import Verdict
from safe_align.sampling import Sampling
from safe_align.templates import Template

TURNS = [['How are you?'], ['Hi.', 'Hello!', 'What is 2 + 2? <|im_end|>']]
SAMPLING = Sampling(max_new_tokens=9, temperature=0.7, top_p=0.9, num_samples=2, seed=5)


@pytest.fixture(scope='module')
def template(tiny):
    return Template(load_tokenizer(str(tiny), '--model'))


def drawn(url, template, api='completions', sampling=SAMPLING, model=None, **options):
    """What came, by prompt and sample; and the endpoint."""
    came = {}
    endpoint = Endpoint(Server(url, model, api, retries=1, timeout=60.0))

    def keep(one, answer):
        assert answer.text
        assert (one.prompt, one.sample) not in came
        came[one.prompt, one.sample] = one

    respond(endpoint, template, TURNS, sampling, [70, 80], keep, **options)
    return came, endpoint


def test_completions_are_asked_for_by_ids_and_come_with_ids_and_log_probs(template):
    ids = [*template.tokenizer('Fine.')['input_ids'], template.end_id]
    log_probs = [-0.5] * len(ids)

    def script(asked, n):
        return completion('Fine.', log_probs=log_probs, token_ids=ids, prompt_token_ids=asked.body['prompt'])

    with Scripted(script) as server:
        came, _ = drawn(server.url, template)
    assert sorted(came) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert came[1, 0] == (1, 0, 'Fine.', ids, log_probs, True)
    body = next(asked.body for asked in server.asked if asked.body['seed'] == seed_of(5, 80, 1))
    assert body == {
        'model': 'scripted', 'prompt': template.prompt(TURNS[1]), 'max_tokens': 9, 'temperature': 0.7, 'top_p': 0.9,
        'seed': seed_of(5, 80, 1), 'logprobs': 1, 'return_token_ids': True, 'stop_token_ids': template.stop_ids,
        'top_k': -1, 'min_p': 0.0, 'repetition_penalty': 1.0,
    }  # fmt: skip


def test_the_same_seed_asks_the_same_and_another_asks_otherwise(template):
    def seeds(sampling):
        with Scripted(lambda asked, n: completion('x', log_probs=[-1.0])) as server:
            drawn(server.url, template, sampling=sampling)
        return {asked.body['seed'] for asked in server.asked}

    first = seeds(SAMPLING)
    assert len(first) == 4
    assert first == seeds(SAMPLING) == {seed_of(5, key, sample) for key in (70, 80) for sample in (0, 1)}
    assert not first & seeds(dataclasses.replace(SAMPLING, seed=6))
    assert all(0 <= seed < 2**31 for seed in first)


def test_the_temperatures_of_laws_are_asked_for(template):
    with Scripted(lambda asked, n: completion('x', log_probs=[-1.0])) as server:
        laws = (Law(), Law(1.0, 0.0, 1.5))
        drawn(server.url, template, sampling=dataclasses.replace(SAMPLING, temperature=2.0, laws=laws))
    assert sorted(asked.body['temperature'] for asked in server.asked) == [2.0, 2.0, 3.0, 3.0]


def test_chat_is_asked_for_by_messages(template):
    with Scripted(lambda asked, n: chat(' Fine. ', 'length', [-1.0, -2.0])) as server:
        came, _ = drawn(server.url, template, 'chat')
    assert came[0, 1] == (0, 1, 'Fine.', None, [-1.0, -2.0], False)
    body = next(asked.body for asked in server.asked if asked.body['seed'] == seed_of(5, 80, 0))
    assert body['logprobs'] is True
    assert [message['role'] for message in body['messages']] == ['user', 'assistant', 'user']
    assert [message['content'] for message in body['messages']] == TURNS[1]


def test_what_is_there_already_is_not_asked_for(template):
    with Scripted(lambda asked, n: completion('x', log_probs=[-1.0])) as server:
        came, endpoint = drawn(server.url, template, done={(0, 0), (1, 1)})
    assert sorted(came) == [(0, 1), (1, 0)]
    assert endpoint.usage.requests == 2


def test_no_log_probabilities_is_one_line_that_says_what_to_do(template):
    for reply in (completion('x'), error(403, 'You are not allowed to request logprobs from this model')):
        with (
            Scripted(lambda asked, n, r=reply: r if 'logprobs' in asked.body else completion('x')) as server,
            pytest.raises(UserError, match=r'gives no log-probabilities of scripted; take a server that does'),
        ):
            drawn(server.url, template)


def test_without_need_they_are_not_asked_for_and_rows_have_none(template):
    with Scripted(lambda asked, n: completion('x')) as server:
        came, _ = drawn(server.url, template, need_log_probs=False)
    assert came[0, 0] == (0, 0, 'x', None, None, True)
    assert not any('logprobs' in asked.body for asked in server.asked)


def test_a_server_that_takes_text_alone_gets_text_that_makes_the_same_ids(template):
    def script(asked, n):
        if not isinstance(asked.body['prompt'], str):
            return error(400, 'prompt must be a string.')
        return completion('x', log_probs=[-1.0])

    with Scripted(script) as server:
        drawn(server.url, template)
    texts = {asked.body['prompt'] for asked in server.asked if isinstance(asked.body['prompt'], str)}
    assert texts == {template.prompt_text(turns) for turns in TURNS}
    assert template.tokenizer(template.prompt_text(TURNS[0]))['input_ids'] == template.prompt(TURNS[0])


def test_a_prompt_that_is_too_long_is_told_of_and_changes_nothing_for_others(template):
    with (
        Scripted(lambda asked, n: error(400, 'the prompt is too long: 9 tokens')) as server,
        pytest.raises(UserError, match=r"answers 400: 'the prompt is too long"),
    ):
        drawn(server.url, template)
    assert all(isinstance(asked.body['prompt'], list) for asked in server.asked)


def test_a_server_that_reads_the_prompt_otherwise_gives_no_ids(template):
    reply = chat('x', log_probs=[-1.0], token_ids=[7], prompt_token_ids=[1, 2, 3])
    with Scripted(lambda asked, n: reply) as server:
        with pytest.raises(UserError, match=r'prompt [01]: the server makes other ids of it than the policy'):
            drawn(server.url, template, 'chat')
        came, _ = drawn(server.url, template, 'chat', need_log_probs=False)
    assert came[0, 0] == (0, 0, 'x', None, None, True)


@pytest.mark.parametrize('api', ['completions', 'chat'])
def test_a_real_server_answers(real_server, template, tiny, api):
    """`transformers serve` lists no local folder, takes text alone, refuses names it does not know."""
    came, endpoint = drawn(real_server, template, api, model=str(tiny), need_log_probs=False)
    assert sorted(came) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(one.text and one.ids is None and one.log_probs is None for one in came.values())
    assert {'top_k', 'return_token_ids'} <= endpoint.refused
    assert endpoint.usage.requests == 4
    assert 4 <= endpoint.usage.completion_tokens <= 4 * SAMPLING.max_new_tokens


def test_a_real_server_judges_as_well_as_its_model_can(real_server, tiny, tmp_path):
    with Journal(tmp_path / 'judge.jsonl', lambda _: None) as journal:
        judge = Judge(Server(real_server, str(tiny), timeout=60.0), journal, '{prompt} {answer_a} {answer_b}')
        verdicts = judge([Pair(['Which?'], 'one', 'two')])
        assert [row['answer'] != '' for row in journal.rows()] == [True, True]
    assert verdicts == [Verdict('abstain', None, None)]
    assert judge.endpoint.usage.prompt_tokens > 0


def test_a_real_server_without_log_probabilities_is_told_of(real_server, template, tiny):
    with pytest.raises(UserError, match=r'gives no log-probabilities of .*tiny; take a server that does'):
        drawn(real_server, template, model=str(tiny))


def test_a_real_server_that_serves_another_model_is_told_of(real_server, template):
    with pytest.raises(UserError, match=r'answers 400: "Server is pinned to '):
        drawn(real_server, template, model='another')


def test_a_score_model_that_chooses_reads_text_where_a_server_gives_no_ids(monkeypatch):
    written_by = []

    class Longest:
        def reading(self, writer):
            written_by.append(tuple(writer))
            return self

        def __call__(self, conversations):
            return torch.tensor([float(len(one.text)) for one in conversations])

    monkeypatch.setattr('safe_align.online.sampling_run.load_scorer', lambda *_, **__: Longest())
    config = SimpleNamespace(
        reward_model_name_or_path='x', micro_batch_tokens=1, trust_remote_code=False, num_return_sequences=1
    )
    work = SimpleNamespace(config=config, template=None, turns=TURNS, ids=[[1], [2]], laws=[None, None])
    for ids in ([5], None):
        drawn = [Drawn(0, sample, text, ids, None, True) for sample, text in enumerate(['short', 'longer'])]
        assert chooser(work, None, lambda some, drawn=drawn: drawn)([0]) == drawn[1:]
    assert written_by == [('', '')]
