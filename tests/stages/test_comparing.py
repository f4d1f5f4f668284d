"""The stage compare: real models, a scripted judge that is paid, judges of one's own, kills, and mistakes."""

from __future__ import annotations

import csv
import json
import re
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch
from forks import kill, wait_for
from servers import Scripted, chat
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from safe_align.datasets.rows import prompt_hash
from safe_align.templates import messages_of

ROOT = Path(__file__).parents[2]
COMPARE, HERE = 'safe_align.evaluate.compare', ('--bf16', False, '--log_type', 'none')
LENGTHS = [(5, 3), (2, 2), (1, 9), (7, 4), (6, 1), (3, 8)]  # of candidate and baseline: won, same, lost, won, won, lost
FUNCTIONS = """
from safe_align.functions import score_function

def judge(tools):
    return lambda comparisons: ['better'] * len(comparisons)

@score_function
def length(turns, response):
    return len(response)
"""


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def summary_of(directory: Path) -> dict:
    return json.loads((directory / 'summary.json').read_text(encoding='utf-8'))


@pytest.fixture
def plugin(tmp_path) -> Path:
    path = tmp_path / 'mine.py'
    path.write_text(FUNCTIONS, encoding='utf-8')
    return path


@pytest.fixture
def samples(tmp_path) -> Path:
    """A file of HALOs."""
    path = tmp_path / 'kto.json'
    path.write_text(json.dumps({'sampled_at': 'x', 'config': {'exp_name': 'kto-7b'}, 'samples': [
        {'prompt': f'\n<|user|>\nQuestion {n}?\n<|assistant|>\n', 'policy': 'x' * ours, 'chosen': 'x' * theirs,
         'category': 'odd' if n % 2 else 'even'} for n, (ours, theirs) in enumerate(LENGTHS)
    ]}, indent=2), encoding='utf-8')  # fmt: skip
    return path


@pytest.fixture
def by_length(samples, plugin):
    """Options of the judge to whom the longer answer is better."""
    return (
        '--samples', samples, '--judge', 'function', '--plugin', plugin, '--reward_model_name_or_path',
        'function:length', *HERE,
    )  # fmt: skip


def test_a_file_of_halos_and_a_function(ends, by_length, tmp_path, capsys):
    call = ('evaluate.compare', *by_length, '--results', tmp_path / 'shared.jsonl')
    code, said = ends(*call)
    assert code == 0, said
    place = tmp_path / 'out'
    verdicts = ['candidate', 'tie', 'baseline', 'candidate', 'candidate', 'baseline']
    rows, summary = rows_of(place / 'comparisons.jsonl'), summary_of(place)
    assert [row['verdict'] for row in rows] == verdicts
    assert [(row['candidate_reward'], row['baseline_reward']) for row in rows] == LENGTHS
    assert rows[4]['prompt'] == messages_of(['Question 4?'])
    assert [summary[key] for key in ('wins', 'ties', 'losses', 'unscored')] == [3, 1, 2, 0]
    assert summary['win_rate']['value'] == pytest.approx(3.5 / 6)
    assert (summary['candidate'], summary['baseline'], summary['judge']['name']) == ('policy', 'chosen', 'function')
    kinds = [(one['category'], one['wins'], one['ties'], one['losses']) for one in summary['categories']]
    assert kinds == [('even', 2, 0, 1), ('odd', 1, 1, 1)]
    with (place / 'comparisons.csv').open(newline='', encoding='utf-8') as file:
        table = list(csv.DictReader(file))
    assert [(row['prompt'], row['verdict']) for row in table] == [
        (f'Question {n}?', verdict) for n, verdict in enumerate(verdicts)
    ]
    (line,) = rows_of(place / 'results.jsonl')
    assert rows_of(tmp_path / 'shared.jsonl') == [line]
    assert (line['total'], line['exp_name'], line['judge']) == (6, 'kto-7b', 'function')
    assert line['candidate'] == {'name': 'policy', 'wins': 3, 'lengths': [one for one, _ in LENGTHS]}
    assert line['config'] == {'exp_name': 'kto-7b'}
    record = json.loads((place / 'safe_align.json').read_text(encoding='utf-8'))
    assert record['summary'] == summary
    assert {name: parent['kind'] for name, parent in record['parents'].items()} == {
        'reward_model_name_or_path': 'function', 'samples': None,
    }  # fmt: skip
    assert (place / 'prompts.hashes').read_text().split() == sorted(
        f'{prompt_hash([f"Question {n}?"]):016x}' for n in range(6)
    )
    assert 'holds this run, finished' in ends(*call)[1]
    assert rows_of(tmp_path / 'shared.jsonl') == [line]


def test_a_run_that_is_killed_before_it_is_whole_adds_its_line_once(stages, by_length, tmp_path):
    call = (COMPARE, *by_length, '--results', tmp_path / 'shared.jsonl', '--output_dir', tmp_path / 'out')
    assert stages.start(*call, dies_at=('.finishing', 3)).wait() == -signal.SIGKILL
    (line,) = rows_of(tmp_path / 'shared.jsonl')
    assert not (tmp_path / 'out' / 'summary.json').exists()
    two = stages.launch(2, *call)
    assert [stage.wait() for stage in two] == [0, 0], two[0].said
    assert rows_of(tmp_path / 'shared.jsonl') == [line]
    found = [(row['candidate_reward'], row['baseline_reward']) for row in rows_of(tmp_path / 'out/comparisons.jsonl')]
    assert found == LENGTHS  # of two processes, in their order


def test_sampled_answers_and_score_models(stages, chain, starter, tmp_path):
    data = f'jsonl:6/-1:{starter / "test.jsonl"}'
    code, said = stages.run(
        'safe_align.online.sample', '--model_name_or_path', chain / 'ppo_lag', '--datasets', data, *HERE,
        '--num_return_sequences', 2, '--max_length', 96, '--max_new_tokens', 12, '--output_dir', tmp_path / 'drawn',
    )  # fmt: skip
    assert code == 0, said
    code, said = stages.run(
        COMPARE, '--samples', tmp_path / 'drawn', '--datasets', data, '--reward_model_name_or_path', chain / 'reward',
        '--cost_model_name_or_path', chain / 'cost', *HERE, '--output_dir', tmp_path / 'out',
    )  # fmt: skip
    assert code == 0, said
    better = {}
    for row in rows_of(starter / 'test.jsonl'):
        better.setdefault(row['prompt'], row[f'response_{row["better_response_id"]}'])
    rows, summary = rows_of(tmp_path / 'out/comparisons.jsonl'), summary_of(tmp_path / 'out')
    assert [row['baseline'] for row in rows] == [better[row['prompt'][0]['content']] for row in rows]
    assert [row['candidate'] for row in rows] == [
        row['response'] for row in rows_of(tmp_path / 'drawn/responses.jsonl')
    ]
    assert (summary['num_comparisons'], summary['num_prompts'], summary['win_rate']['n']) == (12, 6, 6)
    assert (summary['candidate'], summary['baseline']) == ('ppo_lag', 'chosen')
    for row in rows:
        reward, cost = ((row[f'candidate_{kind}'], row[f'baseline_{kind}']) for kind in ('reward', 'cost'))
        safe = [one <= 0 for one in cost]
        won = safe[0] if safe[0] != safe[1] else reward[0] > reward[1] if all(safe) else cost[0] < cost[1]
        assert row['verdict'] == ('candidate' if won else 'baseline')
    assert rows[0]['candidate_reward'] == pytest.approx(_score(chain / 'reward', rows[0], 'candidate'), abs=1e-4)
    assert rows[-1]['baseline_cost'] == pytest.approx(_score(chain / 'cost', rows[-1], 'baseline'), abs=1e-4)
    parents = json.loads((tmp_path / 'out/safe_align.json').read_text(encoding='utf-8'))['parents']
    assert {name: parent['path'] for name, parent in parents.items()} == {
        'samples': str(tmp_path / 'drawn'), 'reward_model_name_or_path': str(chain / 'reward'),
        'cost_model_name_or_path': str(chain / 'cost'),
    }  # fmt: skip


def _score(model: Path, row: dict, side: str) -> float:
    """As other people's code reads the directory."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    messages = [*row['prompt'], {'role': 'assistant', 'content': row[side]}]
    text = tokenizer.apply_chat_template(messages, tokenize=False).rstrip('\n')
    ids = tokenizer(text, return_tensors='pt', add_special_tokens=False)['input_ids']
    with torch.no_grad():
        return AutoModelForSequenceClassification.from_pretrained(model)(ids).logits.item()


def prefers_long(asked, n):
    """A consistent judge, but for question 3, where it likes what comes first, and 4, of which it says nothing."""
    one, two = (re.search(f'<answer_{side}>\n(.*?)\n</answer_{side}>', asked.text, re.DOTALL)[1] for side in 'ab')
    if 'Question 4?' in asked.text:
        return chat('I would rather not.')
    return chat(f'Reasons. [[{"A" if "Question 3?" in asked.text or len(one) > len(two) else "B"}]]')


def test_a_paid_judge_that_is_killed_is_paid_once(stages, ends, samples, tmp_path):
    call = ('--samples', samples, '--judge', 'openai', *HERE, '--output_dir', tmp_path / 'out')
    killed = threading.Event()

    def slow(asked, n):
        assert n < 4 or killed.wait(60)
        return prefers_long(asked, n)

    with Scripted(slow) as server:
        call = (*call, '--judge_url', server.url)
        stage = stages.start(COMPARE, *call, '--judge_concurrency', 1)
        wait_for(lambda: len(server.asked) == 5, stage)
        assert kill([stage]) == [-signal.SIGKILL]
        killed.set()
        code, said = ends('evaluate.compare', *call)
        assert code == 0, said
        assert {*Counter(asked.text for asked in server.asked).values()} == {1}  # the fifth, which was under way, too
        assert len(server.asked) == len(server.delivered) == 10
    rows, summary = rows_of(tmp_path / 'out/comparisons.jsonl'), summary_of(tmp_path / 'out')
    assert [row['verdict'] for row in rows] == ['candidate', 'tie', 'baseline', 'tie', 'unscored', 'baseline']
    assert [(row['with_candidate_first'], row['with_baseline_first']) for row in rows] == [
        ('candidate', 'candidate'), (None, None), ('baseline', 'baseline'), ('candidate', 'baseline'), (None, None),
        ('baseline', 'baseline'),
    ]  # fmt: skip
    assert [summary[key] for key in ('wins', 'ties', 'losses', 'unscored')] == [1, 2, 2, 1]
    judge = summary['judge']
    assert (judge['model'], judge['pairs'], judge['consistent'], judge['abstentions']) == ('scripted', 5, 3, 1)
    assert (judge['answers'], judge['prompt_tokens']) == (10, 70)
    assert 'judge scripted: 5 pairs, 1 ties, 1 abstentions; ' in said
    assert rows_of(tmp_path / 'out/results.jsonl')[0]['judge'] == 'scripted'
    assert len(rows_of(tmp_path / 'out/judgements.jsonl')) == 10


def test_a_judge_of_one_s_own(ends, samples, plugin, tmp_path):
    example = ROOT / 'examples/custom_judge.py'
    call = ('evaluate.compare', '--samples', samples, *HERE, '--judge')
    code, said = ends(*call, 'custom_judge', '--plugin', example)
    assert code == 0, said
    rows, summary = rows_of(tmp_path / 'out/comparisons.jsonl'), summary_of(tmp_path / 'out')
    assert [(row['verdict'], row['candidate_words']) for row in rows] == [('tie', 0)] * 6
    assert summary['judge']['file']['name'] == 'custom_judge.py'
    code, said = ends(*call, 'mine', '--plugin', plugin, '--overwrite')
    assert code == 2
    told = "--judge mine: 6 times candidate, baseline, tie, unscored were expected, found 6: ['better', 'better', 'be"
    assert told in said.splitlines()[-1]


def test_a_judge_that_says_nothing_is_no_result(ends, samples, tmp_path):
    with Scripted(lambda request, n: chat('Hard to say.')) as server:
        code, said = ends('evaluate.compare', '--samples', samples, '--judge', 'openai', '--judge_url', server.url,
                          '--max_comparisons', 1, '--seed', 3, *HERE)  # fmt: skip
    assert (code, len(server.asked)) == (2, 2)
    assert said.splitlines()[-1].endswith('--judge openai: gave no verdict on any of 1 comparisons')
    assert not (tmp_path / 'out/summary.json').exists()


def test_mistakes_are_told_before_anything_is_written(fails, chain, samples, by_length, tmp_path):
    call = ('evaluate.compare', '--samples', samples, *HERE)
    assert '--judge score_model: no such judge (did you mean score_models?)' in fails(*call, '--judge', 'score_model')
    assert '--judge score_models: needs --reward_model_name_or_path' in fails(*call)
    assert '--judge openai: needs --judge_url' in fails(*call, '--judge', 'openai')
    model = ('--reward_model_name_or_path', chain / 'reward')
    assert '--reward_model_name_or_path: --judge exact reads none' in fails(*call, *model, '--judge', 'exact')
    assert 'function:NAME was expected' in fails(*call, *model, '--judge', 'function')
    cost = ('--cost_model_name_or_path', 'function:length')
    assert '--cost_model_name_or_path: --judge function reads none' in fails('evaluate.compare', *by_length, *cost)
    assert 'a cost model, where a reward model was expected' in fails(*call, model[0], chain / 'cost')
    assert '--judge exact: no row has a right answer beside' in fails(*call, '--judge', 'exact')
    assert f'--results {tmp_path}: is a directory' in fails('evaluate.compare', *by_length, '--results', tmp_path)
    assert '--judge_template' in fails(*call, '--judge', 'openai', '--judge_url', 'http://localhost/v1',
                                       '--judge_template', tmp_path / 'none')  # fmt: skip
    two = ('--baseline_key', 'chosen', '--datasets', 'jsonl:1:data.jsonl')
    assert '--baseline_key chosen: the baseline is that of --datasets; choose one' in fails(*call, *two)
    samples.write_text(samples.read_text().replace('"policy": "xxxxxxx"', '"answer": "xxxxxxx"'))
    assert 'kto.json, row 4: no policy; keys found: prompt, answer, ch' in fails('evaluate.compare', *by_length)
    assert not (tmp_path / 'out').exists()


def test_the_script_says_what_is_compared_unless_the_user_does(tmp_path):
    import subprocess

    echo = tmp_path / 'python'
    echo.write_text('#!/usr/bin/env bash\nprintf "%s " "$@"\n')
    echo.chmod(0o755)

    def said(*flags: str) -> str:
        return subprocess.run(
            ['bash', ROOT / 'scripts/compare.sh', *flags], capture_output=True, text=True, check=True,
            env={'PYTHON': str(echo), 'NUM_DEVICES': '1', 'PATH': '/usr/bin:/bin'},
        ).stdout  # fmt: skip

    scorer = '--reward_model_name_or_path output/rm '
    start = f'-m {COMPARE} --output_dir output/compare '
    assert said() == f'{start}--samples output/samples --datasets PKU-SafeRLHF/test {scorer}'
    assert said('--baseline', 'b') == f'{start}--samples output/samples {scorer}--baseline b '
    assert said('--file', 'a', '--judge', 'exact') == f'{start}--file a --judge exact '
