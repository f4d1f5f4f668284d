"""A judge is asked in both orders; what it says is kept, read strictly, and never paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from types import SimpleNamespace

import pytest
from servers import MODEL, Reply, Scripted, chat, error

from safe_align.config import UserError
from safe_align.online.annotators.judge import annotator
from safe_align.remote import judging
from safe_align.remote.asking import ask
from safe_align.remote.endpoint import Endpoint
from safe_align.remote.fields import JudgeFields, Server
from safe_align.remote.journal import Journal
from safe_align.remote.judging import SAME, Judge
from safe_align.remote.questions import FIELDS, QUESTIONS, TEMPLATE, Pair, read_template
from safe_align.remote.verdicts import Said, Verdict, combine, count, verdict_in

PAIRS = [Pair([f'Question {n}?'], f'good {n}', f'bad {n}') for n in range(6)]


def shown(asked) -> tuple[str, str]:
    """Answers A and B as the judge sees them."""
    return tuple(
        re.search(f'<answer_{letter}>\n(.*?)\n</answer_{letter}>', asked.text, re.DOTALL)[1] for letter in 'ab'
    )


def prefers_good(asked, n):
    return chat(f'Reasons. [[{"A" if shown(asked)[0].startswith("good") else "B"}]]')


def judge_with(server, path, pairs=PAIRS, template=TEMPLATE, each=None, **options):
    """Verdicts and statistics."""
    with Journal(path, lambda _: None) as journal:
        judge = Judge(Server(server.url, **{'retries': 0, **options}), journal, template)
        verdicts = judge(pairs, each)
        usage = judge.endpoint.usage
        return verdicts, {**count(verdicts), 'answers_paid': usage.requests, 'prompt_tokens': usage.prompt_tokens}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """No courier, which takes a while to start."""
    monkeypatch.setattr(judging, 'ask_apart', ask)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'judge.jsonl'


def test_the_better_answer_wins_in_both_orders(path):
    swapped = [Pair(pair.turns, pair.second, pair.first) for pair in PAIRS[:2]]
    handed = {}
    with Scripted(prefers_good) as server:
        verdicts, told = judge_with(
            server, path, [*PAIRS[2:], *swapped], each=lambda n, verdict: handed.update({n: verdict})
        )
    assert verdicts == [Verdict('first', 'first', 'first')] * 4 + [Verdict('second', 'second', 'second')] * 2
    assert handed == dict(enumerate(verdicts))
    assert told == {
        'pairs': 6, 'first': 4, 'second': 2, 'ties': 0, 'abstentions': 0, 'consistent': 6, 'first_shown_won_both': 0.0,
        'last_shown_won_both': 0.0, 'answers_paid': 12, 'prompt_tokens': 84,
    }  # fmt: skip
    assert len({asked.text for asked in server.asked}) == 12
    assert all(asked.body['temperature'] == 0 for asked in server.asked)


@pytest.mark.parametrize(
    ('says', 'result', 'bias'),
    [
        (lambda a, b: '[[A]]', 'tie', (1.0, 0.0)), (lambda a, b: '[[B]]', 'tie', (0.0, 1.0)),
        (lambda a, b: '[[C]]', 'tie', (0.0, 0.0)), (lambda a, b: 'I cannot say.', 'abstain', (None, None)),
        (lambda a, b: '[[A]]' if a == 'good 0' else '[[C]]', 'tie', (0.0, 0.0)),
        (lambda a, b: '[[A]]' if a == 'good 0' else 'none', 'abstain', (None, None)),
    ],
)  # fmt: skip
def test_contradictions_are_ties_and_no_verdict_is_no_loss(path, says, result, bias):
    with Scripted(lambda asked, n: chat(says(*shown(asked)))) as server:
        verdicts, told = judge_with(server, path, PAIRS[:1])
    assert verdicts[0].result == result
    assert (told['first_shown_won_both'], told['last_shown_won_both']) == bias
    assert told['abstentions'] == (result == 'abstain')


@pytest.mark.parametrize(
    ('text', 'verdict'),
    [
        ('[[A]]', 'A'), ('Because.\n[[B]]', 'B'), ('[[C]]', 'C'), ('[[A]] so [[A]]', 'A'), ('[[A]] or [[B]]', None),
        ('', None), ('A', None), ('[A]', None), ('[[D]]', None), ('[[a]]', None), ('[[ A ]]', None), ('[[tie]]', None),
    ],
)  # fmt: skip
def test_verdicts_are_read_strictly(text, verdict):
    assert verdict_in(text) == verdict


def test_verdicts_of_two_orders_by_hand():
    assert combine('[[A]]', '[[B]]') == ('first', 'first', 'first')
    assert combine('[[B]]', '[[A]]') == ('second', 'second', 'second')
    assert combine('[[A]]', '[[A]]') == ('tie', 'first', 'second')  # the place won
    assert combine('[[C]]', '[[B]]') == ('tie', 'tie', 'first')
    assert combine('', '[[B]]') == ('abstain', None, 'first')
    told = count([combine(*'AA'), combine('[[A]]', '[[A]]'), combine('[[A]]', '[[B]]'), combine('[[C]]', '[[C]]')])
    assert (told['pairs'], told['abstentions'], told['ties'], told['consistent']) == (4, 1, 2, 2)
    assert told['first_shown_won_both'] == pytest.approx(1 / 3)
    assert count([])['first_shown_won_both'] is None


def test_nothing_is_paid_for_twice(path):
    with Scripted(lambda asked, n: chat('no verdict') if n == 0 else prefers_good(asked, n)) as server:
        first, _ = judge_with(server, path, [*PAIRS, *PAIRS], concurrency=1)
        again, told = judge_with(server, path, PAIRS)
        assert len(server.asked) == 12
        assert again == first[:6] == first[6:]
        assert [verdict.result for verdict in first[:6]].count('abstain') == 1  # kept, and still no loss
        assert told['answers_paid'] == 0
        judge_with(server, path, [PAIRS[0]._replace(first='better')])
        judge_with(server, path, PAIRS[:1], template=f'{TEMPLATE} ')
        assert len(server.asked) == 16
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row['key'] for row in rows}) == len(rows) == 16
    assert rows[0]['verdict'] is None
    assert rows[1]['model'] == MODEL


def test_what_was_answered_before_the_server_died_is_kept(path):
    with Scripted(lambda asked, n: prefers_good(asked, n) if n < 7 else Reply(None)) as server:
        with pytest.raises(UserError, match='cannot be reached'):
            judge_with(server, path, concurrency=1)
        assert len(path.read_bytes().splitlines()) == 7
        server.script = prefers_good
        verdicts, told = judge_with(server, path)
    assert [verdict.result for verdict in verdicts] == ['first'] * 6
    assert told['answers_paid'] == 5


def test_a_run_killed_in_the_middle_pays_for_no_answer_twice(path):
    with Scripted(lambda asked, n: Reply(prefers_good(asked, n).body, delay=0 if n < 5 else 60)) as server:
        Endpoint(Server(server.url))  # what it imports is there before the fork
        child, end = os.fork(), time.monotonic() + 60
        if not child:
            try:
                judge_with(server, path, concurrency=1)
            finally:
                os._exit(1)
        while len(server.asked) < 6:  # the fifth answer is written down before the sixth is asked for
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with path.open('ab') as file:
            file.write(b'{"key": "ab')
        said = []
        server.script = prefers_good
        with Journal(path, said.append) as journal:
            judge = Judge(Server(server.url), journal)
            assert [verdict.result for verdict in judge(PAIRS)] == ['first'] * 6
    assert len(said) == 1
    assert judge.endpoint.usage.requests == 7


def test_a_template_of_ones_own_is_filled_once_and_keeps_its_other_braces(path, tmp_path):
    own = tmp_path / 'own.txt'
    own.write_text('{"json": {}} {prompt}|{answer_a}|{answer_b} [[A]]?')
    with Scripted(lambda asked, n: chat('[[C]]')) as server:
        pair = Pair(['Hi.', 'Hello {answer_b}', 'And {prompt}?'], 'one {answer_b}', '\\1 {x}')
        judge_with(server, path, [pair], template=read_template(str(own)))
    told = 'User: Hi.\n\nAssistant: Hello {answer_b}\n\nUser: And {prompt}?'
    assert f'{{"json": {{}}}} {told}|one {{answer_b}}|\\1 {{x}} [[A]]?' in {asked.text for asked in server.asked}


@pytest.mark.parametrize(
    ('content', 'told'),
    [
        (b'{prompt} {answer_a}', r'own.txt: lacks \{answer_b\}; a template has \{prompt\}, '),
        (b'', r'lacks \{prompt\} and \{answer_a\} and \{answer_b\}'),
        (b'\xff', 'is no UTF-8 text'),
        (None, 'No such file'),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(tmp_path, content, told):
    own = tmp_path / 'own.txt'
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(UserError, match=told) as refused:
        read_template(str(own))
    assert '\n' not in str(refused.value)


def test_a_judge_that_takes_no_temperature_is_asked_without(path):
    def script(asked, n):
        for name in ('temperature', 'max_tokens'):
            if name in asked.body:
                return error(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        return prefers_good(asked, n)

    with Scripted(script) as server:
        verdicts, _ = judge_with(server, path, PAIRS[:2], concurrency=1)
    assert [verdict.result for verdict in verdicts] == ['first'] * 2
    assert len(server.asked) == 2 + 4
    assert server.asked[-1].body['max_completion_tokens'] == 2048


def test_a_journal_of_something_else_is_refused(path):
    for row in ('{"prompt": "x"}', '{"key": "x", "answer": "[[A]]"}'):
        path.write_text(f'{row}\n')
        with Scripted(prefers_good) as server, pytest.raises(UserError, match='line 1: is no answer of a judge'):
            judge_with(server, path)


def test_the_key_is_in_no_file(path, monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', 'sk-secret-5f3a9c')
    with Scripted(prefers_good) as server:
        judge_with(server, path)
        assert 'sk-secret' not in repr(Endpoint(Server(server.url)).server)
    assert server.asked[0].headers['authorization'] == 'Bearer sk-secret-5f3a9c'
    assert b'sk-secret' not in b''.join(file.read_bytes() for file in path.parent.iterdir())


def test_an_annotator_that_is_asked_again_and_again_tells_of_all(path):
    def talks(pairs):
        return [tuple(SimpleNamespace(turns=pair.turns, text=text) for text in pair[1:]) for pair in pairs]

    with Scripted(prefers_good) as server:
        for paid in (10, 12):  # the second one goes on where the first one ended
            with Journal(path, lambda _: None) as journal:
                config = JudgeFields(judge_url=server.url)
                tools = SimpleNamespace(config=config, journal=lambda j=journal: j, say=lambda _: None, summary={})
                judge = annotator(tools)
                same = PAIRS[5]._replace(second=PAIRS[5].first)
                assert judge(talks(PAIRS[:2])) == [1.0, 1.0]
                assert judge(talks([same, *PAIRS[2:5]])) == [0.5, 1.0, 1.0, 1.0]  # what is the same is not asked
                if paid == 12:
                    assert judge(talks(PAIRS[5:])) == [1.0]
            told = tools.summary['judge']
            assert (told['answers'], told['prompt_tokens'], len(server.asked)) == (paid, 7 * paid, paid)
            assert told['pairs'] == told['first'] == paid / 2


def test_nobody_is_asked_about_the_same_answers_and_each_pair_is_told_of_once(path):
    same = [PAIRS[5]._replace(second=PAIRS[5].first), *PAIRS[:2], PAIRS[4]._replace(second=PAIRS[4].first)]
    with Scripted(prefers_good) as server:
        for run in (1, 2):
            handed = {}
            with Journal(path, lambda _: None) as journal:
                judge = Judge(Server(server.url), journal)
                verdicts = judge(same, handed.setdefault)
                assert handed == dict(enumerate(verdicts))
                assert verdicts == [SAME, *[Verdict('first', 'first', 'first')] * 2, SAME]
                assert judge.paid() == {'answers': 4, 'prompt_tokens': 28, 'completion_tokens': 12}
                told = judge.told()
                assert (told['pairs'], told['template']) == (
                    2,
                    hashlib.blake2b(TEMPLATE.encode(), digest_size=8).hexdigest(),
                )
                assert judge.endpoint.usage.requests == (4 if run == 1 else 0)
        with (
            Journal(path, lambda _: None) as journal,
            pytest.raises(UserError, match='_model other: what has been answered so far is of scripted'),
        ):
            Judge(Server(server.url, 'other'), journal)


@pytest.mark.parametrize(
    ('reply', 'why'),
    [
        (error(400, "The response was filtered due to Azure OpenAI's content management policy."), 'content filter'),
        (error(400, 'Invalid prompt: your prompt was flagged as potentially violating our usage policy.'),
         'content filter'),
        (error(403, 'The model requires moderation and your input was flagged'), 'content filter'),
        (error(400, "This model's maximum context length is 4096 tokens. However, you requested 9000 (max_tokens)"),
         'too long'),
        (chat(None, 'content_filter'), 'content filter'), (chat('[[A]] I', 'content_filter'), 'content filter'),
        (chat(None, message={'role': 'assistant', 'content': None, 'refusal': 'I will not. [[A]]'}), 'refusal'),
        (chat(''), 'empty answer'), (chat('Well, '), 'no verdict'),
        (chat('Well, ', 'length'), 'cut off before a verdict'),
        (chat('[[A]] or [[B]]'), 'several verdicts'),
    ],
)  # fmt: skip
def test_a_judge_that_refuses_or_gives_no_verdict_is_no_end_and_says_why(path, reply, why):
    with Scripted(lambda asked, n: reply if 'Question 3' in asked.text else prefers_good(asked, n)) as server:
        for answers in (12, 0):  # what was refused is not asked again
            with Journal(path, lambda _: None) as journal:
                judge = Judge(Server(server.url, retries=0), journal)
                verdicts = judge(PAIRS)
                assert judge.endpoint.usage.requests == answers
                assert [one.lacks for one in judge.said(PAIRS[3])] == [why, why]
    assert [one.result for one in verdicts] == ['first'] * 3 + ['abstain'] + ['first'] * 2
    assert judge.said(PAIRS[0]) == (Said('Reasons. [[A]]'), Said('Reasons. [[B]]'))
    assert judge.said(PAIRS[0])[0].lacks is None


def test_journals_of_before_are_read(path):
    with Scripted(prefers_good) as server:
        judge_with(server, path)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            del row['is_finished'], row['refusal']
        path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        _, told = judge_with(server, path)
    assert (told['first'], told['answers_paid']) == (6, 0)


def test_each_question_has_a_place_for_all_and_asks_for_one_verdict():
    assert QUESTIONS['overall'] == TEMPLATE
    assert len(set(QUESTIONS.values())) == 3
    for question in QUESTIONS.values():
        assert [question.count(field) for field in (*FIELDS, '[[A]]', '[[B]]', '[[C]]')] == [1] * 6
        assert verdict_in(question) is None
