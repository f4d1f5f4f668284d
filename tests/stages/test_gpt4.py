"""A judge compares two policies: what is asked, what is written, and what goes wrong."""

from __future__ import annotations

import csv
import gc
import json
import re
from importlib import resources
from pathlib import Path

import pytest
from servers import Reply, Scripted, chat, error, free_port

from safe_align.datasets.rows import prompt_hash, prompt_name
from safe_align.evaluate import corners
from safe_align.online.records import Drawn, row_of
from safe_align.remote import judging
from safe_align.remote.asking import ask

STAGE = 'evaluate.gpt4'
HERE = ('--bf16', False, '--judge_retries', 0)
CATEGORIES = ('arithmetic', 'manners')
RED, BLUE = '--red_corner_model_name_or_path', '--blue_corner_model_name_or_path'


def responses(place: Path, answers: dict[str, list[str]]) -> Path:
    """A file as `safe_align.online.sample` writes it."""
    rows = [
        row_of([prompt], Drawn(0, 0, text, None, None, True), n, {})
        for prompt, texts in answers.items()
        for n, text in enumerate(texts)
    ]
    place.mkdir()
    (place / 'responses.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return place


def shown(asked) -> tuple[str, str]:
    """Answers A and B as the judge sees them."""
    return tuple(re.search(f'<answer_{side}>\n(.*?)\n</answer_{side}>', asked.text, re.DOTALL)[1] for side in 'ab')


def prefers_long(asked, n):
    one, two = shown(asked)
    return chat(f'It says more. [[{"A" if len(one) > len(two) else "B" if len(two) > len(one) else "C"}]]')


def evaluated(place: Path) -> tuple[list[dict], dict]:
    rows = [json.loads(line) for line in (place / 'eval.jsonl').read_text(encoding='utf-8').splitlines()]
    return rows, json.loads((place / 'summary.json').read_text())


@pytest.fixture
def both(tmp_path) -> tuple:
    """Answers of two sides to 8 prompts: blue's are longer but for the last two, of which one is red's own."""
    red = {f'Question {n}?': [f'red {n}'] for n in range(8)}
    blue = {prompt: [f'blue answer {n}'] for n, prompt in enumerate(red)}
    blue['Question 6?'], blue['Question 7?'] = ['b'], red['Question 7?']
    rows = [{'prompt': prompt, 'category': CATEGORIES[n % 2]} for n, prompt in enumerate(red)]
    data = tmp_path / 'prompts.jsonl'
    data.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    sides = (responses(tmp_path / 'red', red), responses(tmp_path / 'blue', blue))
    return (STAGE, '--responses', *sides, '--datasets', f'jsonl:1:{data}', *HERE)


@pytest.fixture
def here(monkeypatch):
    """No courier, which takes a while to start."""
    monkeypatch.setattr(judging, 'ask_apart', ask)


def test_answers_that_were_sampled_before_are_judged_in_both_orders(ends, both, tmp_path):
    with Scripted(prefers_long) as server:
        code, said = ends(*both, '--judge_url', server.url, '--judge_prices', 2, 10)
        assert code == 0, said
        assert len(server.asked) == 14  # of seven pairs; the answers of the eighth are the same
        assert 'holds this run, finished' in ends(*both, '--judge_url', server.url)[1]
        assert len(server.asked) == 14
    rows, summary = evaluated(tmp_path / 'out')
    assert [row['verdict'] for row in rows] == ['blue'] * 6 + ['red', 'tie']
    assert rows[0] == {
        'prompt_id': prompt_name(prompt_hash(['Question 0?'])), 'sample': 0, 'prompt': 'Question 0?',
        'category': 'arithmetic', 'red_answer': 'red 0', 'blue_answer': 'blue answer 0', 'verdict': 'blue',
        'reason': None, 'red_first': {'verdict': 'blue', 'text': 'It says more. [[B]]'},
        'blue_first': {'verdict': 'blue', 'text': 'It says more. [[A]]'},
    }  # fmt: skip
    assert (rows[7]['reason'], rows[7]['red_first']) == ('identical answers', None)
    assert summary['blue_win_rate']['value'] == 6.5 / 8
    assert (summary['answers_paid'], summary['prompt_tokens'], summary['completion_tokens']) == (14, 98, 42)
    assert summary['money'] == pytest.approx((98 * 2 + 42 * 10) / 1e6)
    assert [(one['category'], one['num_prompts']) for one in summary['categories']] == [(one, 4) for one in CATEGORIES]
    record = json.loads((tmp_path / 'out/safe_align.json').read_text())
    assert record['summary'] == summary
    assert set(record['parents']) == {'responses', 'responses_2'}


def test_policies_answer_once_however_often_the_judge_fails(here, ends, tiny, family, monkeypatch, tmp_path):
    data = tmp_path / 'prompts.jsonl'
    data.write_text(''.join(json.dumps({'prompt': f'What is {n} and {n}?'}) + '\n' for n in range(4)))
    call = (
        STAGE, RED, tiny, BLUE, family('llama'), '--datasets', f'jsonl:1:{data}', *HERE, '--max_length', 96,
        '--max_new_tokens', 6,
    )  # fmt: skip
    with Scripted(lambda asked, n: prefers_long(asked, n) if n < 3 else error(500, 'oops')) as server:
        assert ends(*call, '--judge_url', server.url, '--judge_concurrency', 1)[0] == 2
        gc.collect()  # a process of its own would have let the directory go
        monkeypatch.delattr(corners, 'answer')
        server.script = prefers_long
        code, said = ends(*call, '--judge_url', server.url)
        assert code == 0, said
        assert len(server.asked) == 9
    rows, summary = evaluated(tmp_path / 'out')
    assert len(rows) == summary['num_prompts'] == 4
    assert len({row['red_answer'] for row in rows} | {row['blue_answer'] for row in rows}) > 1
    assert summary['red'] == str(tiny)
    assert not (tmp_path / 'out/parts').exists()
    record = json.loads((tmp_path / 'out/safe_align.json').read_text())
    assert record['datasets'][0]['used'] == 4
    assert set(record['parents']) == {RED[2:], BLUE[2:]}


def test_what_has_no_verdict_is_unscored_and_counted_by_its_reason(here, ends, both, tmp_path):
    says = {
        0: error(400, 'filtered by the content management policy'), 1: chat('I would rather not.'),
        2: chat('[[A]]'), 3: chat('[[A]] [[B]]'), 4: chat('Hm', 'length'), 5: chat(''),
    }  # fmt: skip

    def script(asked, n):
        return says.get(int(re.search(r'Question (\d)', asked.text)[1])) or prefers_long(asked, n)

    with Scripted(script) as server:
        code, said = ends(*both, '--judge_url', server.url)
    assert code == 0, said
    rows, summary = evaluated(tmp_path / 'out')
    assert [row['verdict'] for row in rows] == [*['unscored'] * 2, 'tie', *['unscored'] * 3, 'red', 'tie']
    assert (rows[2]['red_first']['verdict'], rows[2]['blue_first']['verdict']) == ('red', 'blue')  # the place won
    assert summary['unscored_reasons'] == dict.fromkeys(
        ('content filter', 'no verdict', 'several verdicts', 'cut off before a verdict', 'empty answer'), 1
    )
    assert (summary['unscored'], summary['blue_win_rate']['n'], summary['num_prompts']) == (5, 3, 8)
    assert summary['blue_win_rate']['value'] == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert (summary['answers_paid'], summary['places']['first_won_both']) == (14, 1)


@pytest.mark.parametrize(
    ('reply', 'more', 'told'),
    [
        (error(401, 'no key'), (), 'refuses requests without a key; set OPENAI_API_KEY (401)'),
        (error(404, 'no such model'), ('--judge_model', 'gpt-5'), '--judge_model gpt-5: '),
        (error(429, 'slow'), (), 'too many requests (429); lower --judge_concurrency or --judge_requests_per_minute'),
        (error(500, 'oops'), (), "answers 500: 'oops'"),
        (Reply('<html>'), (), "answers no JSON: '<html>'"),
        (Reply({'choices': []}), (), 'answers no choices'),
        (Reply(None), (), 'cannot be reached'),
        (Reply({}, delay=30), ('--judge_timeout', 0.1), 'no answer within 0.1 s (--judge_timeout)'),
    ],
    ids=['key', 'model', 'limit', 'broken', 'garbage', 'empty', 'dropped', 'slow'],
)
def test_what_goes_wrong_is_one_line_and_loses_nothing(here, ends, both, tmp_path, monkeypatch, reply, more, told):
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    with Scripted(lambda asked, n: prefers_long(asked, n) if n < 5 else reply) as server:
        call = (*both, '--judge_url', server.url, *more)
        code, said = ends(*call, '--judge_concurrency', 1)
        (last,) = (line for line in said.splitlines() if 'error: ' in line)
        assert code == 2
        assert told in last
        assert last.endswith('; 5 answers are kept')
        assert not (tmp_path / 'out/eval.jsonl').exists()
        gc.collect()  # a process of its own would have let the directory go
        server.script = prefers_long
        code, said = ends(*call)
        assert code == 0, said
        assert len(server.asked) == 15  # the one that it died of was asked once more
    assert evaluated(tmp_path / 'out')[1]['answers_paid'] == 14


def test_a_judge_that_is_not_there_is_named_before_anything_is_asked(here, ends, both):
    url = f'http://127.0.0.1:{free_port()}/v1'
    code, said = ends(*both, '--judge_url', url)
    assert code == 2
    assert f'--judge_url {url}: cannot be reached' in said


def test_the_question_can_be_about_harm_or_of_ones_own(here, ends, both, tmp_path):
    own = tmp_path / 'own.txt'
    own.write_text(
        '{prompt} <answer_a>\n{answer_a}\n</answer_a> <answer_b>\n{answer_b}\n</answer_b> [[A]], [[B]], [[C]]?'
    )
    found = []
    for more in (('--compare', 'harmlessness'), ('--judge_template', own)):
        with Scripted(prefers_long) as server:
            assert ends(*both, '--judge_url', server.url, *more, '--overwrite')[0] == 0
        found.append((evaluated(tmp_path / 'out')[1], server.asked[0].text))
    (safety, asked), (mine, asked_too) = found
    assert 'to refuse is safe' in asked
    assert asked_too.endswith(' [[A]], [[B]], [[C]]?')
    assert (safety['compare'], mine['compare']) == ('harmlessness', None)
    assert safety['judge_template'] != mine['judge_template']


def test_an_arena_is_read_and_its_problems_have_their_categories(here, ends, tmp_path):
    file = resources.files('safe_align.evaluate') / 'problems' / 'problem83.jsonl'
    problems = [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()[:20:10]]
    table = tmp_path / 'arena' / 'table.csv'
    table.parent.mkdir()
    with table.open('w', newline='', encoding='utf-8') as out:
        writer = csv.writer(out)
        writer.writerow(['prompt', 'sample', 'one_answer', 'two_answer', 'one_reward'])
        writer.writerows(
            [row['prompt'], sample, 'no', '' if sample else 'no, and "why"\n', 1.5]
            for row in problems
            for sample in (0, 1)
        )
    call = (STAGE, *HERE, '--responses', table.parent)
    with Scripted(prefers_long) as server:
        code, said = ends(*call, '--judge_url', server.url)
    assert code == 0, said
    rows, summary = evaluated(tmp_path / 'out')
    assert [(row['sample'], row['verdict']) for row in rows] == [(0, 'blue'), (1, 'red')] * 2
    assert (summary['num_prompts'], summary['num_pairs'], summary['blue_win_rate']['value']) == (2, 4, 0.5)
    assert (summary['red'], summary['blue_empty']) == (f'one of {table.parent}', 2)
    assert {row['category'] for row in rows} == {row['category'] for row in problems}


def test_answers_that_do_not_belong_together_are_one_line(fails, both, tmp_path):
    url = ('--judge_url', 'http://localhost/v1')
    red = both[2]
    other = responses(tmp_path / 'other', {f'Question {n}?': ['x'] for n in range(3, 12)})
    call = (STAGE, *HERE, *url, '--responses')
    told = "3 are in red alone, such as 'Question 0?'; 4 are in blue alone, such as 'Question 8?'; 5 are in both"
    assert told in fails(*call, red, other)
    twice = responses(tmp_path / 'twice', {f'Question {n}?': ['x', 'y'] for n in range(8)})
    assert 'has 1 responses in red and 2 in blue' in fails(*call, red, twice)
    empty = responses(tmp_path / 'empty', {})
    assert 'there are no answers' in fails(*call, empty, empty)
    assert 'No such file' in fails(*call, tmp_path / 'none')
    table = tmp_path / 'table.csv'
    for text, told in (
        ('prompt,sample,a_answer\n', 'two that end in _answer were expected'),
        ('prompt,sample,a_answer,b_answer\nWhy?,0,x\n', 'row 2: is cut off'),
        ('prompt,sample,a_answer,b_answer\nWhy?,zero,x,y\n', 'row 2: is cut off'),
    ):
        table.write_text(text)
        assert told in fails(*call, table)


def test_flags_that_contradict_each_other(fails, both, tiny, monkeypatch):
    url = ('--judge_url', 'http://localhost/v1')
    assert '--judge_url: which server is the judge?' in fails(*both)
    assert f'{RED} and --responses: choose one' in fails(*both, *url, RED, tiny)
    assert f'{BLUE}: is required, or --responses' in fails(STAGE, *url, RED, tiny)
    assert 'red and blue, or one arena' in fails(STAGE, *url, '--responses', 'a', 'b', 'c')
    assert 'asks its own question' in fails(*both, *url, '--judge_template', 'x', '--compare', 'helpfulness')
    assert '--judge_prices 2: two were expected' in fails(*both, *url, '--judge_prices', 2)
    assert '--judge_prices inf: must be a finite number' in fails(*both, *url, '--judge_prices', 'inf', 2)
    assert 'lacks {prompt}' in fails(*both, *url, '--judge_template', both[2] / 'responses.jsonl')
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert 'the judge is asked by one process' in fails(*both, *url)


def test_a_real_server_judges_as_well_as_its_model_can(ends, tiny, real_server, tmp_path):
    sides = [responses(tmp_path / side, {'Which?': [side]}) for side in ('red', 'blue')]
    own = tmp_path / 'own.txt'
    own.write_text('{prompt} {answer_a} {answer_b}')
    code, said = ends(
        STAGE, '--responses', *sides, '--judge_url', real_server, '--judge_model', tiny, '--judge_template', own,
        '--judge_timeout', 60,
    )  # fmt: skip
    assert code == 0, said
    rows, summary = evaluated(tmp_path / 'out')
    assert (rows[0]['verdict'], rows[0]['reason'], summary['answers_paid']) == ('unscored', 'no verdict', 2)
    assert rows[0]['red_first']['text']
    assert summary['completion_tokens'] > 0
