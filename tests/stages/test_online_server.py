"""The stages sample and annotate with a server that fails in every way: nothing is lost, nothing is paid for twice."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
from forks import kill, wait_for
from servers import Reply, Scripted, chat, completion, error, free_port

SAMPLE, ANNOTATE = 'safe_align.online.sample', 'safe_align.online.annotate'
HERE = ('--bf16', False, '--log_type', 'none')
PLUGIN = """
from safe_align.functions import score_function

COMPARES = True

@score_function
def last_digit(turns, response):
    return int(response[-1])

def annotator(tools):
    return lambda pairs: ['better'] * len(pairs)
"""


def rows_of(directory: Path, name: str = 'responses') -> list[dict]:
    return [json.loads(line) for line in (directory / f'{name}.jsonl').read_text(encoding='utf-8').splitlines()]


def summary_of(directory: Path) -> dict:
    return json.loads((directory / 'summary.json').read_text())


def draws(asked, n):
    """A response that shows what it was asked with."""
    log_probs = [-1.0, -0.5, -0.25] if 'logprobs' in asked.body else None
    return completion(f'Answer {asked.body["seed"]}', log_probs=log_probs)


def bodies(server) -> Counter:
    return Counter(json.dumps(asked.body, sort_keys=True) for asked in server.asked)


def prefers_short(asked, n):
    """A judge that is consistent, and has reasons."""
    one, two = (re.search(f'<answer_{side}>\n(.*?)\n</answer_{side}>', asked.text, re.DOTALL)[1] for side in 'ab')
    return chat(f'Both have their merits. [[{"A" if (len(one), one) < (len(two), two) else "B"}]]')


@pytest.fixture
def asked(tiny, starter, tmp_path):
    """What sampling is asked for, of a server that is named later."""
    return (
        '--model_name_or_path', tiny, '--datasets', f'jsonl:12/-1:{starter / "train.jsonl"}', '--max_length', 96,
        '--max_new_tokens', 8, *HERE, '--generation_backend', 'server', '--server_retries', 1, '--output_dir',
        tmp_path / 'out',
    )  # fmt: skip


@pytest.fixture
def plugin(tmp_path) -> Path:
    path = tmp_path / 'mine.py'
    path.write_text(PLUGIN, encoding='utf-8')
    return path


@pytest.fixture(scope='module')
def sampled(stages, tiny, starter, tmp_path_factory) -> Path:
    """Two responses to each of 12 prompts."""
    place = tmp_path_factory.mktemp('sampled') / 'responses'
    code, said = stages.run(
        SAMPLE, '--model_name_or_path', tiny, '--datasets', f'jsonl:12/-1:{starter / "train.jsonl"}',
        '--max_length', 96, '--max_new_tokens', 8, *HERE, '--output_dir', place,
    )  # fmt: skip
    assert code == 0, said
    return place


@pytest.fixture
def judged(sampled, tmp_path):
    """What annotating is asked for, of a judge that is named later."""
    return (
        '--responses', sampled, '--annotator', 'judge', '--judge_retries', 0, *HERE, '--output_dir', tmp_path / 'out'
    )  # fmt: skip


def ended_with_one_line(code: int, said: str) -> str:
    assert code == 2, said
    assert 'Traceback' not in said
    *_, last = said.splitlines()
    assert ': error: ' in last
    return last


class TestSample:
    def test_responses_of_a_server_without_the_weights_of_the_policy(self, stages, asked, tiny, tmp_path):
        shutil.copytree(tiny, tmp_path / 'policy')
        (tmp_path / 'policy' / 'model.safetensors').write_bytes(b'no weights')

        def script(request, n):
            unknown = {'top_k', 'min_p'} & request.body.keys()
            return error(400, f'unknown: {sorted(unknown)}') if unknown else draws(request, n)

        with Scripted(script) as server:
            code, said = stages.run(
                SAMPLE, *asked, '--server_url', server.url, '--model_name_or_path', tmp_path / 'policy'
            )
            assert code == 0, said
            code, again = stages.run(SAMPLE, *asked, '--server_url', server.url, '--model_name_or_path',
                                     tmp_path / 'policy')  # fmt: skip
            assert (code, 'holds this run, finished' in again) == (0, True)
            answered = [one for one in server.asked if 'top_k' not in one.body]
        rows = rows_of(tmp_path / 'out')
        assert [row['sample_id'] for row in rows] == [0, 1] * 12
        assert len(answered) == len({row['response'] for row in rows}) == 24
        assert sorted(f'Answer {one.body["seed"]}' for one in answered) == sorted(row['response'] for row in rows)
        server_told = {'model': 'scripted', 'api': 'completions', 'refused': ['min_p', 'top_k']}
        for row in rows:
            assert row['log_probs'] == [-1.0, -0.5, -0.25]
            assert row['token_ids'] is None
            assert row['settings']['server'] == server_told
            assert row['law'] == {'policy': 1.0, 'reference': 0.0, 'temperature': 1.0}
        paid = {'answers': 24, 'prompt_tokens': 24 * 7, 'completion_tokens': 24 * 3}
        assert summary_of(tmp_path / 'out')['server'] == {**server_told, **paid}
        record = json.loads((tmp_path / 'out' / 'safe_align.json').read_text())
        assert record['summary']['tokens'] == 72
        assert record['summary']['server']['prompt_tokens'] == 168
        assert record['parents']['model_name_or_path']['hash'].startswith(rows[0]['settings']['policy'])
        assert '24 answers: 168 tokens in, 72 out; the server refused min_p, top_k, and drew without' in said
        assert not (tmp_path / 'out' / 'parts').exists()

    def test_the_same_seed_asks_the_same_and_another_iteration_asks_anew(self, stages, asked, tmp_path):
        found = []
        for name, more in (('a', ()), ('b', ('--server_concurrency', 3)), ('c', ('--iteration', 1))):
            with Scripted(draws) as server:
                place = ('--server_url', server.url, '--output_dir', tmp_path / name)
                assert stages.run(SAMPLE, *asked, *more, *place)[0] == 0
            found.append(bodies(server))
        assert found[0] == found[1]
        assert not found[0] & found[2]
        assert rows_of(tmp_path / 'a') == rows_of(tmp_path / 'b')

    def test_a_server_that_dies_and_comes_back_elsewhere_is_asked_for_the_rest(self, stages, asked, tmp_path):
        with Scripted(lambda request, n: draws(request, n) if n < 9 else Reply(None)) as server:
            more = ('--server_url', server.url, '--server_concurrency', 1, '--server_retries', 0)
            last = ended_with_one_line(*stages.run(SAMPLE, *asked, *more))
            assert re.search(r'--server_url http.*: cannot be reached: .*; 9 responses are kept$', last)
            came = bodies(server)
        with Scripted(draws) as other:
            code, said = stages.run(SAMPLE, *asked, '--server_url', other.url)
            assert code == 0, said
        assert '9 of 24 responses of the server are there already' in said
        assert len(other.asked) == 15
        assert len(came & bodies(other)) == 1  # the one that the server died of
        assert len({row['response'] for row in rows_of(tmp_path / 'out')}) == 24
        assert summary_of(tmp_path / 'out')['server']['answers'] == 24

    def test_a_killed_run_asks_for_no_response_that_it_has(self, stages, asked, tmp_path):
        kept = tmp_path / 'out' / 'parts' / 'served' / '0.jsonl'
        with Scripted(lambda request, n: Reply(draws(request, n).body, delay=0 if n < 7 else 60)) as server:
            more = ('--server_url', server.url, '--server_concurrency', 1)
            stage = stages.start(SAMPLE, *asked, *more)
            wait_for(lambda: len(server.asked) == 8, stage)  # the seventh is written down before the eighth is asked
            assert kill([stage]) == [-signal.SIGKILL]
            with kept.open('ab') as file:
                file.write(b'{"prompt_id": "ab')
            server.script = draws
            code, said = stages.run(SAMPLE, *asked, *more)
            assert code == 0, said
        assert 'its last line was half written' in said
        assert sorted(bodies(server).values()) == [1] * 23 + [2]
        assert len(rows_of(tmp_path / 'out')) == 24

    def test_processes_share_the_prompts(self, stages, asked, tmp_path):
        with Scripted(draws) as server:
            two = stages.launch(2, SAMPLE, *asked, '--server_url', server.url)
            assert [stage.wait() for stage in two] == [0, 0], two[0].said
        assert set(bodies(server).values()) == {1}
        assert len(rows_of(tmp_path / 'out')) == len(server.asked) == 24
        assert summary_of(tmp_path / 'out')['server']['completion_tokens'] == 72

    def test_a_sampler_of_temperatures_asks_for_them(self, stages, asked, tmp_path):
        with Scripted(draws) as server:
            more = ('--sampler', 'temperature', '--temperature', 2, '--server_url', server.url)
            code, said = stages.run(SAMPLE, *asked, *more)
        assert code == 0, said
        assert '--logprobs-mode processed_logprobs' in said
        assert Counter(one.body['temperature'] for one in server.asked) == {1.4: 12, 2.6: 12}
        assert [row['law']['temperature'] for row in rows_of(tmp_path / 'out')] == [1.4, 2.6] * 12

    def test_the_best_of_four_is_chosen_when_all_are_there(self, stages, asked, plugin, tmp_path):
        more = ('--sampler', 'best_of_n', '--plugin', plugin, '--reward_model_name_or_path', 'function:last_digit')
        with Scripted(lambda request, n: draws(request, n) if n < 50 else Reply(None)) as server:
            place = ('--server_url', server.url, '--server_retries', 0)
            last = ended_with_one_line(*stages.run(SAMPLE, *asked, *more, *place, '--server_concurrency', 1))
            assert last.endswith('50 responses are kept')
            server.script = draws
            code, said = stages.run(SAMPLE, *asked, *more, *place)
            assert code == 0, said
        assert sum(bodies(server).values()) == 12 * 2 * 4 + 1
        drawn: dict[str, list[int]] = {}
        for one in server.asked:
            if one is not server.asked[50]:
                drawn.setdefault(json.dumps(one.body['prompt']), []).append(one.body['seed'] % 10)
        highest = Counter(max(digits) for digits in drawn.values())
        kept = rows_of(tmp_path / 'out')
        assert len(kept) == 24
        by_prompt = [max(int(row['response'][-1]) for row in kept[n : n + 2]) for n in range(0, 24, 2)]
        assert Counter(by_prompt) == highest

    def test_another_model_adds_nothing_to_what_is_there(self, stages, asked):
        with Scripted(lambda request, n: draws(request, n) if n < 5 else error(400, 'no')) as server:
            assert stages.run(SAMPLE, *asked, '--server_url', server.url, '--server_concurrency', 1)[0] == 2
        with Scripted(draws, Reply({'data': [{'id': 'new'}]})) as server:
            last = ended_with_one_line(*stages.run(SAMPLE, *asked, '--server_url', server.url))
            assert '--server_model new: what has been answered so far is of scripted; have that one served' in last
            assert server.asked == []

    def test_too_many_requests_pass(self, stages, asked, tmp_path):
        with Scripted(lambda request, n: error(429, 'slow down') if n == 3 else draws(request, n)) as server:
            code, said = stages.run(SAMPLE, *asked, '--server_url', server.url)
        assert code == 0, said
        assert len(server.asked) == 25
        assert len(rows_of(tmp_path / 'out')) == 24

    @pytest.mark.parametrize(
        ('reply', 'more', 'told'),
        [
            (Reply('<html>login'), (), "answers no JSON: '<html>login'; 0 responses are kept"),
            (Reply({}, delay=30), ('--server_timeout', 0.2), r'no answer within 0.2 s \(--server_timeout\), 2 times'),
            (completion('x'), (), r'gives no log-probabilities .* do without by --server_log_probs none'),
            (error(401, 'no key'), (), 'refuses requests without a key; set OPENAI_API_KEY'),
        ],
        ids=['garbage', 'slow', 'no log-probabilities', 'no key'],
    )
    def test_what_goes_wrong_is_one_line(self, stages, asked, tmp_path, reply, more, told):
        with Scripted(lambda request, n: reply) as server:
            last = ended_with_one_line(*stages.run(SAMPLE, *asked, '--server_url', server.url, *more))
        assert f'--server_url {server.url}: ' in last
        assert re.search(told, last)
        assert not (tmp_path / 'out' / 'responses.jsonl').exists()

    def test_a_server_that_is_down_is_named(self, stages, asked):
        url = f'http://127.0.0.1:{free_port()}/v1'
        last = ended_with_one_line(*stages.run(SAMPLE, *asked, '--server_url', url, '--server_retries', 0))
        assert f'--server_url {url}: cannot be reached' in last

    def test_a_real_server_answers(self, stages, asked, tiny, real_server, tmp_path):
        """It takes text alone, and gives neither ids nor log-probabilities."""
        patient = ('--server_concurrency', 1, '--server_retries', 5)  # it opens the model for the first request
        more = ('--server_url', real_server, '--server_model', tiny, *patient, '--datasets')
        data = asked[3].replace('12/-1', '3/-1')
        code, said = stages.run(SAMPLE, *asked, *more, data, '--server_log_probs', 'none')
        assert code == 0, said
        rows = rows_of(tmp_path / 'out')
        assert len(rows) == 6
        assert all(row['response'] and row['token_ids'] is row['log_probs'] is None for row in rows)
        assert {'top_k', 'return_token_ids'} <= set(rows[0]['settings']['server']['refused'])
        assert summary_of(tmp_path / 'out')['server']['completion_tokens'] > 0

    def test_flags_that_contradict_each_other(self, fails, asked, tiny):
        assert 'needs --server_url' in fails('online.sample', *asked)
        url = ('--server_url', 'http://localhost/v1')
        assert 'builtin asks none' in fails('online.sample', *asked, *url, '--generation_backend', 'builtin')
        mixed = ('--sampler', 'mixp', '--ref_model_name_or_path', tiny)
        assert 'draws from other laws than the policy' in fails('online.sample', *asked, *url, *mixed)


class TestJudge:
    def test_pairs_of_a_judge(self, stages, judged, sampled, tmp_path):
        with Scripted(lambda request, n: Reply(prefers_short(request, n).body, delay=0.1)) as server:
            code, said = stages.run(ANNOTATE, *judged, '--judge_url', server.url)
            assert code == 0, said
            assert server.most_under_way > 4  # of many prompts at once
            code, again = stages.run(ANNOTATE, *judged, '--judge_url', server.url)
            assert (code, 'holds this run, finished' in again) == (0, True)
        rows, place = rows_of(tmp_path / 'out', 'feedback'), tmp_path / 'out'
        assert len(server.asked) == len(rows_of(place, 'judgements')) == 24
        for row in rows:
            assert (len(row['chosen']), row['chosen']) < (len(row['rejected']), row['rejected'])
            assert row['annotator'] == 'judge'
            assert row['chosen_log_prob'] < 0
        summary = summary_of(place)
        assert (summary['rows'], summary['prompts']) == (len(rows), 12)
        told = summary['judge']
        assert told.pop('first') + told.pop('second') == 12
        assert re.fullmatch('[0-9a-f]{16}', told.pop('template'))
        assert told == {
            'model': 'scripted', 'pairs': 12, 'ties': 0, 'abstentions': 0, 'consistent': 12, 'first_shown_won_both': 0,
            'last_shown_won_both': 0, 'answers': 24, 'prompt_tokens': 168, 'completion_tokens': 72,
        }  # fmt: skip
        assert 'judge scripted: 12 pairs, 0 ties, 0 abstentions; the same verdict in both orders on 12 of 12; ' in said

    def test_a_judge_that_favours_a_place_makes_ties_and_one_without_a_verdict_abstains(self, stages, judged, tmp_path):
        for says, told in (('[[A]]', '12 tie'), ('I would rather not.', '12 abstention')):
            place = tmp_path / told.split()[1]
            with Scripted(lambda request, n, text=says: chat(text)) as server:
                for _ in range(2):  # the second one pays for nothing
                    code, said = stages.run(ANNOTATE, *judged, '--judge_url', server.url, '--output_dir', place)
                    last = ended_with_one_line(code, said)
                    assert last.endswith(f'--annotator judge: no pair is left: {told}')
                assert len(server.asked) == len(rows_of(place, 'judgements')) == 24
            assert ('whoever was shown first won on 100%, last on 0%' in said) == (told == '12 tie')

    def test_abstentions_are_counted_and_the_rest_is_feedback(self, stages, judged, tmp_path):
        def script(request, n):
            return chat('Hard to say.') if n == 0 else prefers_short(request, n)

        with Scripted(script) as server:
            code, said = stages.run(ANNOTATE, *judged, '--judge_url', server.url)
        assert code == 0, said
        summary = summary_of(tmp_path / 'out')
        assert (summary['rows'], summary['dropped'], summary['judge']['abstentions']) == (11, {'abstention': 1}, 1)

    def test_a_judge_that_fails_or_is_killed_is_asked_for_the_rest_alone(self, stages, judged, tmp_path):
        with Scripted(lambda request, n: prefers_short(request, n) if n < 5 else Reply(None)) as server:
            asked = (*judged, '--judge_url', server.url, '--judge_concurrency', 1)
            last = ended_with_one_line(*stages.run(ANNOTATE, *asked))
            assert re.search(r'--judge_url http.*: cannot be reached: .*; 5 answers are kept$', last)
            killed = threading.Event()

            def slow(request, n):
                assert n < 12 or killed.wait(60)
                return prefers_short(request, n)

            server.script = slow
            stage = stages.start(ANNOTATE, *asked)
            wait_for(lambda: len(server.asked) == 13, stage)
            assert kill([stage]) == [-signal.SIGKILL]
            killed.set()
            code, said = stages.run(ANNOTATE, *judged, '--judge_url', server.url)
            assert code == 0, said
            assert Counter(bodies(server).values()) == {1: 23, 2: 1}  # again what the server broke off
            assert summary_of(tmp_path / 'out')['judge']['answers'] == 24
            rows = rows_of(tmp_path / 'out', 'feedback')
            code, said = stages.run(ANNOTATE, *judged, '--judge_url', server.url, '--overwrite')
            assert code == 0, said
        assert len(server.asked) == 25 + 24
        assert rows_of(tmp_path / 'out', 'feedback') == rows

    def test_a_judge_of_ones_own_template(self, stages, judged, tmp_path):
        own = tmp_path / 'own.txt'
        own.write_text('{prompt} 1: {answer_a} 2: {answer_b}. [[A]], [[B]] or [[C]]?')
        with Scripted(lambda request, n: chat('[[A]]' if n % 2 else '[[B]]')) as server:
            more = ('--judge_url', server.url, '--judge_template', own, '--judge_model', 'other')
            code, said = stages.run(ANNOTATE, *judged, *more, '--judge_concurrency', 1)
        assert code == 0, said
        assert all(' 2: ' in one.text and one.body['model'] == 'other' for one in server.asked)
        assert summary_of(tmp_path / 'out')['judge']['second'] == 12

    def test_several_processes_are_refused(self, stages, judged):
        two = stages.launch(2, ANNOTATE, *judged, '--judge_url', 'http://localhost/v1')
        assert [stage.wait() for stage in two] == [2, 2]
        assert '--annotator judge: works in one process' in two[0].said

    def test_mistakes_are_told_before_anything_is_written(self, fails, ends, judged, plugin, sampled, tmp_path):
        assert 'needs --judge_url' in fails('online.annotate', *judged)
        url = ('--judge_url', 'http://localhost/v1')
        (tmp_path / 'bad.txt').write_text('{prompt}')
        bad = ('--judge_template', tmp_path / 'bad.txt')
        assert 'lacks {answer_a} and {answer_b}' in fails('online.annotate', *judged, *url, *bad)
        assert '--pairs max_min' in fails('online.annotate', *judged, *url, '--pairs', 'max_min')
        assert 'gives no scores' in fails('online.annotate', *judged, *url, '--feedback_type', 'scalar')
        assert not (tmp_path / 'out').exists()
        more = ('--annotator', 'mine', '--plugin', plugin)
        assert '--judge_url: --annotator mine reads none' in fails('online.annotate', *judged, *url, *more)
        code, said = ends('online.annotate', *judged, *more)
        assert code == 2
        assert "1 times 1, 0, 0.5 or None were expected, found 1: ['better']" in said.splitlines()[-1]
