"""A judge compares two policies: what is asked, what is written, and what goes wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from servers import Scripted, chat

from safe_align.datasets.rows import prompt_hash, prompt_name
from safe_align.online.records import Drawn, row_of

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
    assert (summary['answers'], summary['prompt_tokens'], summary['completion_tokens']) == (14, 98, 42)
    assert summary['money'] == pytest.approx((98 * 2 + 42 * 10) / 1e6)
    assert [(one['category'], one['num_prompts']) for one in summary['categories']] == [(one, 4) for one in CATEGORIES]
    record = json.loads((tmp_path / 'out/safe_align.json').read_text())
    assert record['summary'] == summary
    assert set(record['parents']) == {'responses', 'responses_2'}


def test_policies_answer_and_what_they_said_is_not_asked_again(ends, tiny, family, tmp_path):
    data = tmp_path / 'prompts.jsonl'
    data.write_text(''.join(json.dumps({'prompt': f'What is {n} and {n}?'}) + '\n' for n in range(4)))
    call = (
        STAGE, RED, tiny, BLUE, family('llama'), '--datasets', f'jsonl:1:{data}', *HERE, '--max_length', 96,
        '--max_new_tokens', 6,
    )  # fmt: skip
    with Scripted(prefers_long) as server:
        code, said = ends(*call, '--judge_url', server.url)
        assert code == 0, said
        assert len(server.asked) == 8
    rows, summary = evaluated(tmp_path / 'out')
    assert len(rows) == summary['num_prompts'] == 4
    assert not (tmp_path / 'out/parts').exists()
