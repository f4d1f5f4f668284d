"""A server that fails in every way: what came is kept, what can be had is had, and the reason is one line."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

import pytest
from servers import Reply, Scripted, chat, completion, error, free_port

from safe_align.config import UserError, parse
from safe_align.remote.endpoint import Endpoint, Usage
from safe_align.remote.fields import Server, ServerFields, check_url

KEY = 'sk-a-key-that-nobody-may-see-5f3a9c'


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)


def say(text):
    return lambda refused: {'messages': [{'role': 'user', 'content': text}], 'temperature': 0.0}


def ask(server, texts=('a',), optional=None, requests=None, **options):
    """What came, and the error if there was one."""
    came, told = {}, None
    endpoint = Endpoint(Server(server.url, **{'retries': 1, 'timeout': 20.0, **options}))
    try:
        endpoint.ask(requests or map(say, texts), lambda number, answer: came.update({number: answer}), optional)
    except UserError as failure:
        told = str(failure)
    assert told is None or ('\n' not in told and len(told) < 300)
    return came, told, endpoint


def test_answers_come_with_their_numbers_and_tokens_are_counted():
    with Scripted(lambda asked, n: chat(asked.text.upper())) as server:
        came, failure, endpoint = ask(server, [f'text {n}' for n in range(30)], concurrency=4)
    assert failure is None
    assert {number: answer.text for number, answer in came.items()} == {n: f'TEXT {n}' for n in range(30)}
    assert endpoint.usage == Usage(30, 30 * 7, 30 * 3)
    assert endpoint.model == 'scripted'
    assert {asked.body['model'] for asked in server.asked} == {'scripted'}
    assert server.asked[0].path == '/v1/chat/completions'


def test_no_more_requests_are_under_way_than_allowed_and_all_places_are_used():
    with Scripted(lambda asked, n: Reply(chat('x').body, delay=0.05)) as server:
        ask(server, ['a'] * 12, concurrency=3)
    assert server.most_under_way == 3


def test_each_answer_is_handed_over_before_the_next_ones_are_there():
    first = threading.Event()

    def script(asked, n):
        if asked.text == 'second':
            assert first.wait(20)  # is set by the hand-over of the first
        return chat(asked.text)

    with Scripted(script) as server:
        endpoint = Endpoint(Server(server.url, concurrency=2))
        endpoint.ask(map(say, ['first', 'second']), lambda number, answer: first.set())


@pytest.mark.parametrize(
    'bad', [error(429, 'slow down'), error(500, 'oops'), error(503, 'busy'), Reply(None)], ids=lambda r: str(r.status)
)
def test_what_passes_is_asked_again(bad):
    with Scripted(lambda asked, n: bad if n == 0 else chat('fine')) as server:
        came, failure, endpoint = ask(server)
    assert failure is None
    assert came[0].text == 'fine'
    assert endpoint.usage.requests == 1
    assert server.asked[1].time - server.asked[0].time > 0.3


def test_a_server_that_says_when_to_come_again_is_asked_then():
    bad = error(429, 'slow down', Retry_After='2')
    with Scripted(lambda asked, n: bad if n == 0 else chat('fine')) as server:
        came, _, _ = ask(server)
    assert came[0].text == 'fine'
    assert server.asked[1].time - server.asked[0].time >= 2


def test_too_many_requests_for_good_is_one_line():
    with Scripted(lambda asked, n: error(429, 'quota is spent')) as server:
        came, failure, _ = ask(server)
    assert len(server.asked) == 2
    assert came == {}
    assert 'too many requests (429), 2 times; lower --server_concurrency' in failure
    assert 'quota is spent' in failure


@pytest.mark.parametrize(
    ('reply', 'told'),
    [
        (Reply('{"choices": [{"mess'), 'answers no JSON: \'{"choices": [{"mess\''),
        (Reply('<html>' + 'login ' * 500, type='text/html'), "answers no JSON: '<html>login login"),
        (Reply('[1]'), 'answers no JSON object'),
        (Reply({'choices': []}), 'answers no choices'),
        (Reply({'object': 'x'}), 'answers no choices'),
        (Reply({'choices': ['x']}), 'answers no choices'),
        (Reply({'choices': [{'index': 0}]}), 'answers no text'),
        (Reply({'choices': [{'message': {'content': 5}}]}), 'answers no text'),
        (chat('x', log_probs=[float('nan')]), 'answers log-probabilities that are no numbers'),
        (chat('x', log_probs=[-1.0], token_ids=[1, 2]), 'answers 2 tokens with 1 log-probabilities'),
        (chat('x', token_ids=['1']), 'answers token_ids that are no token ids'),
        (Reply('', status=400), 'answers 400'),
        (error(400, 'x' * 1000), 'answers 400: '),
        (error(500, 'broken'), "answers 500, 2 times: 'broken'"),
    ],
)
def test_answers_that_nobody_can_read_are_one_line_with_the_url(reply, told):
    with Scripted(lambda asked, n: reply) as server:
        came, failure, _ = ask(server)
    assert came == {}
    assert f'--server_url {server.url}: ' in failure
    assert told in failure
    assert len(failure) < len(server.url) + 200


def test_an_answer_is_text_that_a_file_can_hold():
    with Scripted(
        lambda asked, n: Reply('{"choices": [{"message": {"content": "a \\ud83d\\ude00 b \\ud83d"}}]}')
    ) as server:
        came, failure, _ = ask(server)
    assert failure is None
    assert came[0].text == 'a 😀 b �'


def test_a_filtered_answer_is_an_empty_one():
    with Scripted(lambda asked, n: chat(None, 'content_filter')) as server:
        came, failure, _ = ask(server)
    assert failure is None
    assert (came[0].text, came[0].is_finished) == ('', False)


def test_a_server_that_is_down_is_named():
    url = f'http://127.0.0.1:{free_port()}/v1'
    with pytest.raises(UserError, match=f'--server_url {url}: cannot be reached, 2 times: ') as refused:
        _ = Endpoint(Server(url, retries=1)).model
    assert '\n' not in str(refused.value)


def test_a_server_that_dies_in_the_middle_leaves_what_it_has_answered():
    with Scripted(lambda asked, n: chat(asked.text) if n < 5 else Reply(None)) as server:
        came, failure, _ = ask(server, 'abcdefgh', concurrency=1)
    assert sorted(came) == [0, 1, 2, 3, 4]
    assert 'cannot be reached, 2 times' in failure


def test_a_slow_server_is_told_of_with_the_time_out():
    with Scripted(lambda asked, n: Reply(chat('x').body, delay=30)) as server:
        came, failure, _ = ask(server, timeout=0.3, retries=1)
    assert came == {}
    assert 'no answer within 0.3 s (--server_timeout), 2 times' in failure


def test_requests_under_way_may_end_when_another_fails():
    both = threading.Barrier(2)

    def script(asked, n):
        both.wait(20)
        return error(400, 'bad') if asked.text == 'bad' else Reply(chat('paid for').body, delay=0.5)

    with Scripted(script) as server:
        came, failure, _ = ask(server, ['bad', 'good', 'never'], concurrency=2)
    assert 'answers 400' in failure
    assert came[1].text == 'paid for'
    assert len(server.asked) == 2


def test_a_request_that_hangs_when_another_fails_is_given_up(monkeypatch):
    monkeypatch.setattr('safe_align.remote.endpoint.GRACE', 0.2)
    both = threading.Barrier(2)

    def script(asked, n):
        both.wait(20)
        return error(400, 'bad') if asked.text == 'bad' else Reply(chat('x').body, delay=60)

    with Scripted(script) as server:
        start = time.monotonic()
        _, failure, _ = ask(server, ['bad', 'hangs'], concurrency=2, timeout=60.0)
        assert time.monotonic() - start < 30
    assert 'answers 400' in failure


def test_what_the_caller_raises_ends_it():
    def full(number, answer):
        raise UserError('the disk is full')

    with Scripted(lambda asked, n: chat('x')) as server, pytest.raises(UserError, match='the disk is full'):
        Endpoint(Server(server.url, concurrency=1)).ask(map(say, 'abc'), full)
    assert len(server.asked) == 1


def test_keys_that_are_refused_are_told_of_and_never_shown(monkeypatch, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    for key, told in (('', 'refuses requests without a key; set OPENAI_API_KEY'), (KEY, 'the key in OPENAI_API_KEY')):
        monkeypatch.setenv('OPENAI_API_KEY', key)
        for status in (401, 403):
            with Scripted(lambda asked, n, s=status: error(s, f'Incorrect {asked.headers["authorization"]}')) as server:
                _, failure, _ = ask(server)
            assert f'{told} ({status})' in failure
            assert KEY not in failure
            assert server.asked[0].headers['authorization'] == f'Bearer {key or "none"}'
    with Scripted(lambda asked, n: error(500, f'{KEY} ' * 9), Reply(f'{KEY}')) as server:
        assert KEY not in ask(server)[1]
        assert KEY not in ask(server, model='m')[1]
    assert KEY not in ''.join(capfd.readouterr())
    assert 'chat/completions' in caplog.text
    assert KEY not in caplog.text


def test_a_key_that_is_none_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', 'sk-\u00e9 x')
    with pytest.raises(UserError, match=r'^OPENAI_API_KEY: holds characters that no key has$'):
        Endpoint(Server('http://127.0.0.1:1'))


def test_an_unknown_model_is_told_with_what_the_server_has():
    with Scripted(lambda asked, n: error(404, 'The model `mine` does not exist')) as server:
        _, failure, _ = ask(server, model='mine')
    assert failure == f'--server_model mine: {server.url} does not have it; it has: scripted, other'


def test_a_missing_api_is_told_of():
    with Scripted(lambda asked, n: error(404, 'Not Found')) as server:
        assert 'has no chat API there (404)' in ask(server)[1]


@pytest.mark.parametrize('models', [error(404, 'no'), Reply({'data': []})])
def test_a_server_that_lists_no_model_needs_a_name(models):
    with Scripted(lambda asked, n: chat('x'), models) as server:
        assert 'lists no model; name one by --server_model' in ask(server)[1]
        assert ask(server, model='mine')[0][0].text == 'x'
    assert server.asked[0].body['model'] == 'mine'


def test_a_server_that_cannot_list_its_models_may_be_used_by_name():
    with Scripted(lambda asked, n: chat('x'), error(500, 'no cache')) as server:
        assert "answers 500: 'no cache'" in ask(server, retries=0)[1]
        assert ask(server, model='mine', retries=0)[0][0].text == 'x'


def test_a_list_of_models_that_nobody_can_read_is_one_line():
    for reply, told in ((Reply('<html>'), "'<html>'"), (Reply({'data': [{'id': None}]}), '\'{"data"')):
        with Scripted(lambda asked, n: chat('x'), reply) as server:
            assert f'answers no list of models: {told}' in ask(server)[1]


def test_the_path_is_v1_where_none_is_given():
    with Scripted(lambda asked, n: chat('x')) as server:
        server.url = server.url.removesuffix('/v1')
        assert ask(server)[0][0].text == 'x'
    assert server.asked[0].path == '/v1/chat/completions'


@pytest.mark.parametrize('status', [400, 422])
def test_names_that_a_server_does_not_know_are_left_out_from_then_on(status):
    def request(refused):
        return {'prompt': [1, 2], **{name: 1 for name in ('top_k', 'min_p') if name not in refused}}

    def script(asked, n):
        unknown = {'top_k'} & asked.body.keys()
        return error(status, f'Unexpected fields: {unknown}') if unknown else completion('x')

    with Scripted(script) as server:
        optional = {'top_k': r'\btop_k\b', 'min_p': r'\bmin_p\b'}
        came, failure, endpoint = ask(
            server, optional=optional, requests=[request] * 9, api='completions', concurrency=2
        )
    assert failure is None
    assert len(came) == 9
    assert endpoint.refused == {'top_k'}
    assert len(server.asked) <= 11
    assert server.asked[-1].body == {'model': 'scripted', 'prompt': [1, 2], 'min_p': 1}


def test_a_missing_package_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'openai', None)
    with pytest.raises(UserError, match=r"--server_url http://x/v1: needs openai; pip install 'safe_align\[server\]'"):
        Endpoint(Server('http://x/v1'))


@pytest.mark.parametrize(
    ('url', 'told'),
    [
        ('localhost:8000', 'is no URL such as'), ('ftp://x/v1', 'is no URL such as'), ('http:///', 'is no URL such as'),
        (f'https://user:{KEY}@x/v1', 'must hold no key'), (f'https://x/v1?key={KEY}', 'must hold no key'),
    ],
)  # fmt: skip
def test_what_is_no_url_or_holds_a_secret_is_refused_without_being_shown(url, told):
    with pytest.raises(UserError, match=told) as refused:
        check_url(url)
    assert KEY not in str(refused.value)


def test_the_flags_make_a_server():
    fields = ServerFields(server_url='http://x/v1', server_concurrency=3)
    assert fields.server() == Server('http://x/v1', None, 'completions', 3)
    with pytest.raises(UserError, match='--server_url: which server'):
        ServerFields().server()
    with pytest.raises(UserError, match='--server_concurrency 1001: must be at least 1 and at most 1000'):
        parse(ServerFields, ['--server_concurrency', '1001'])


def test_an_interrupt_ends_it_at_once_and_what_came_is_kept():
    came = []

    def script(asked, n):
        return chat('x') if n == 0 else Reply(chat('x').body, delay=60)

    with Scripted(script) as server:
        endpoint = Endpoint(Server(server.url, concurrency=2))

        def kept(number, answer):
            came.append(number)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            endpoint.ask(map(say, 'abc'), kept)
        assert time.monotonic() - start < 30
    assert len(came) == 1
