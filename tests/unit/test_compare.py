"""What is compared with what, what judges say of it, and what is made of that: hand-made files, hand-counted wins."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from safe_align import plugins
from safe_align.config import UserError
from safe_align.datasets.rows import prompt_hash, prompt_name
from safe_align.evaluate.compare import CompareConfig
from safe_align.evaluate.fields import JUDGES
from safe_align.evaluate.judges._record import Comparison
from safe_align.evaluate.judges.exact import judge as exact
from safe_align.evaluate.judges.score_models import decide
from safe_align.evaluate.judges.score_models import judge as score_models
from safe_align.evaluate.length_control import length_controlled
from safe_align.evaluate.pairing import better_answers, pair
from safe_align.evaluate.samples import conversation, read_samples
from safe_align.evaluate.strata import categories_of
from safe_align.evaluate.verdicts import append, render, result_line, summarise
from safe_align.options import listing, table
from safe_align.templates import messages_of

DOCS = Path(__file__).parents[2] / 'docs/comparing.md'
TULU = {'human_prefix': '\n<|user|>\n', 'assistant_prefix': '\n<|assistant|>\n'}
CHATML = {
    'human_prefix': '<|im_start|>user\n', 'human_suffix': '<|im_end|>\n', 'assistant_prefix': '<|im_start|>assistant\n',
    'assistant_suffix': '<|im_end|>\n',
}  # fmt: skip
THREE = [('user', 'Hi <|user|> all'), ('assistant', 'Hello.\n\nYes?'), ('user', 'Why?')]


@pytest.fixture
def write(tmp_path):
    """`write('a.json', value)` writes JSON, `write('a.jsonl', rows)` a row a line; the path."""

    def make(name: str, value) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        rows = [value] if path.suffix == '.json' else value
        text = ''.join(json.dumps(row, indent=2 if path.suffix == '.json' else None) + '\n' for row in rows)
        if path.suffix == '.gz':
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text, encoding='utf-8')
        return path

    return make


def config(samples: Path, **options) -> CompareConfig:
    return CompareConfig(samples=str(samples), output_dir='out', **options)


def texts(found) -> list[tuple]:
    return [(one.comparison.turns, *one.comparison[1:3]) for one in found.compared]


def response(prompt: list[str], number: int, text: str) -> dict:
    """A row of online.sample."""
    name = prompt_name(prompt_hash(prompt))
    return {'prompt_id': name, 'prompt': messages_of(prompt), 'sample_id': number, 'response': text}


class TestPrompts:
    @pytest.mark.parametrize(
        ('text', 'config', 'turns'),
        [
            ('\n<|user|>\nWhy?\n<|assistant|>\n', TULU, [('user', 'Why?')]),
            ('<|user|>\nWhy?\n<|assistant|>', {}, [('user', 'Why?')]),  # white space lost, and a config without marks
            (
                '\n<|user|>\nHi <|user|> all\n<|assistant|>\nHello.\n\nYes?\n<|user|>\nWhy?\n<|assistant|>\n',
                TULU,
                THREE,
            ),
            (
                '<|im_start|>user\nHi <|user|> all<|im_end|>\n<|im_start|>assistant\nHello.\n\nYes?<|im_end|>\n'
                '<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n',
                CHATML,
                THREE,
            ),
            ('of the first turn\n<|assistant|>\nNo.\n<|user|>\nWhy?\n<|assistant|>\n', TULU,
             [('user', 'of the first turn'), ('assistant', 'No.'), ('user', 'Why?')]),
            ('an answer\n<|user|>\nWhy?\n<|assistant|>\n', TULU, [('user', 'Why?')]),
            ('Why?\n\nAssistant:', {'human_prefix': '', 'assistant_prefix': '\n\nAssistant:'}, [('user', 'Why?')]),
            ('Why?', {'human_prefix': '', 'assistant_prefix': ''}, [('user', 'Why?')]),
            ('\n\nHuman: Why?\n\nAssistant:', None, [('user', 'Why?')]),
            ('\n<|user|>\nWhy?', None, [('user', '\n<|user|>\nWhy?')]),  # nothing says that these are marks
        ],
        ids=[
            'one turn', 'lost white space', 'three turns', 'with suffixes', 'cut in a question', 'cut in an answer',
            'one mark', 'no marks', 'Anthropic', 'no config',
        ],
    )  # fmt: skip
    def test_turns_between_marks(self, text, config, turns):
        assert conversation(text, config) == turns


class TestFiles:
    def test_the_file_of_halos(self, write):
        file = write('kto.json', {'sampled_at': 'x', 'config': {'exp_name': 'kto-7b', **TULU}, 'samples': [
            {'prompt': '\n<|user|>\nWhy?\n<|assistant|>\n', 'chosen': ' Because.', 'policy': 'So. '},
            {'prompt': '\n<|user|>\nHow?\n<|assistant|>\n', 'chosen': 'Thus.', 'policy': ''},
        ]})  # fmt: skip
        found = pair(config(file))
        assert texts(found) == [(['Why?'], 'So.', 'Because.'), (['How?'], '', 'Thus.')]
        assert (found.candidate, found.baseline, found.exp_name) == ('policy', 'chosen', 'kto-7b')
        assert found.config == {'exp_name': 'kto-7b', **TULU}
        assert [one.comparison.reference for one in found.compared] == [None, None]
        swapped = pair(config(file, candidate_key='chosen', baseline_key='policy'))
        assert texts(swapped)[0] == (['Why?'], 'Because.', 'So.')

    @pytest.mark.parametrize('name', ['rows.json', 'rows.jsonl', 'rows.jsonl.gz'])
    def test_rows_of_a_generator_against_those_of_another(self, write, name):
        rows = [
            {'output': 'So.', 'generator': 'mine', 'prompt': [{'role': 'user', 'content': 'Why?'}], 'sample_id': 0},
            {'output': 'Thus.', 'generator': 'mine', 'prompt': [{'role': 'user', 'content': 'How?'}], 'sample_id': 0},
        ]
        theirs = [{'instruction': one, 'output': f'{one} No.', 'generator': 'davinci'} for one in ('How?', 'Why?')]
        found = pair(config(write(name, rows), baseline=str(write('other.json', theirs))))
        assert texts(found) == [(['Why?'], 'So.', 'Why? No.'), (['How?'], 'Thus.', 'How? No.')]
        assert (found.candidate, found.baseline, found.exp_name) == ('mine', 'davinci', 'rows')

    def test_a_reference_of_alpaca_eval_is_a_baseline_or_what_is_right(self, write):
        rows = [{'instruction': 'Why?', 'output': 'So.', 'reference': 'Because.', 'chosen': 'Just so.'}]
        own = pair(config(write('a.json', [{key: rows[0][key] for key in ('instruction', 'output', 'reference')}])))
        assert own.compared[0].comparison == Comparison(['Why?'], 'So.', 'Because.', None)
        assert (own.candidate, own.baseline) == ('output', 'reference')
        both = pair(config(write('b.json', rows)))
        assert both.compared[0].comparison == Comparison(['Why?'], 'So.', 'Just so.', 'Because.')

    def test_responses_of_our_own_against_the_better_answers_of_data(self, write, tmp_path):
        long = ['Hi', 'Hello.', 'Why?']
        place = write('drawn/responses.jsonl', [
            response(['Why?'], 0, 'So.'), response(['Why?'], 1, 'No.'), response(long, 0, 'Thus.'),
        ]).parent  # fmt: skip
        data = write('data.jsonl', [
            {'prompt': 'Why?', 'response_0': 'bad', 'response_1': 'good', 'better_response_id': 1, 'category': 'short'},
            {'prompt': 'Why?', 'chosen': 'second', 'rejected': 'x'},  # the first row of a prompt counts
            {'messages': messages_of([*long, 'Fine.'])},
            {'prompt': 'Unasked?', 'completion': 'Yes.'},
        ])  # fmt: skip
        found = pair(config(place, datasets=[f'jsonl:1:{data}']))
        assert texts(found) == [(['Why?'], 'So.', 'good'), (['Why?'], 'No.', 'good'), (long, 'Thus.', 'Fine.')]
        assert (found.candidate, found.baseline, found.exp_name) == ('drawn', 'chosen', 'drawn')
        assert [(one.sample, one.category) for one in found.compared] == [(0, 'short'), (1, 'short'), (0, None)]
        (report,) = found.report
        assert (report['name'], report['rows'], report['used']) == ('jsonl', 4, 4)

    def test_with_a_baseline_the_data_say_what_is_right(self, write):
        rows = [{'prompt': 'Why?', 'output': 'So.'}]
        found = pair(config(
            write('a.jsonl', rows), baseline=str(write('b.jsonl', [{'prompt': 'Why?', 'output': 'No.'}])),
            datasets=[f'jsonl:1:{write("data.jsonl", [{"prompt": "Why?", "completion": "Because."}])}'],
        ))  # fmt: skip
        assert found.compared[0].comparison == Comparison(['Why?'], 'So.', 'No.', 'Because.')

    def test_several_answers_to_a_prompt_meet_one_by_one(self, write):
        mine = write('a.jsonl', [{'prompt': 'Why?', 'output': text} for text in 'abc'])
        other = write('b.jsonl', [{'prompt': ' Why? ', 'output': text} for text in 'xy'])
        assert [one[1:] for one in texts(pair(config(mine, baseline=str(other))))] == [
            ('a', 'x'), ('b', 'y'), ('c', 'x'),
        ]  # fmt: skip

    def test_fewer_comparisons_are_some_of_more(self, write):
        file = write('a.jsonl', [{'prompt': str(n), 'policy': 'a', 'chosen': 'b'} for n in range(40)])
        five, ten, others = (
            [int(one[0][0]) for one in texts(pair(config(file, max_comparisons=count, seed=seed)))]
            for count, seed in ((5, 1), (10, 1), (10, 2))
        )
        assert set(five) < set(ten)
        assert ten == sorted(ten)
        assert (len(five), len(ten)) == (5, 10)
        assert others != ten
        assert len(pair(config(file, max_comparisons=50)).compared) == 40

    def test_answers_that_no_label_calls_better_are_none(self, write):
        found, _ = better_answers([f'jsonl:1:{path}' for path in [write('a.jsonl', [
            {'prompt': '1', 'response_0': 'a', 'response_1': 'b'}, {'prompt': '2', 'completion': 'c', 'label': False},
            {'prompt': '3', 'completion': 'd', 'label': True}, {'prompt': '4', 'completion': ' '}, {'prompt': '5'},
        ])]])  # fmt: skip
        assert found == {prompt_hash(['3']): 'd'}


def test_half_of_a_surrogate_pair_in_the_data_is_in_no_category_and_no_better_answer(write):
    rows = [{'prompt': 'a', 'completion': 'x \ud83d', 'category': 'kind \ud83d'}, {'prompt': 'a', 'completion': 'y'}]
    data = [f'jsonl:1:{write("data.jsonl", rows)}']
    assert categories_of(data) == {prompt_hash(['a']): 'kind ?'}
    found, (report,) = better_answers(data)
    assert found == {prompt_hash(['a']): 'y'}
    assert (report['rows'], report['used']) == (2, 1)


class TestMistakes:
    @pytest.mark.parametrize(
        ('text', 'said'),
        [
            ('', r'it holds no rows'),
            ('[]', r'it holds no rows'),
            ('{"samples": []}', r'it holds no rows'),
            ('{"samples": {"a": 1}}', r'samples must be a list, found dict'),
            ('{"samples": [{}], "config": "x"}', r'a.json: config must be an object in which human_prefix, '),
            ('{"samples": [{}], "config": {"human_suffix": null}}', r'config must be .* human_suffix, .* are texts'),
            (f'{{"samples": {"[" * 100_000}', r'a.json, line 1: not JSON: maximum recursion depth'),
            ('[{"prompt": "a", "policy": "b", "chosen": "c", "category": "\\ud83d"}]', 'row 1: .*surrogates not'),
            ('{"samples": [3]}', r'a.json, row 1: a JSON object was expected, found int'),
            ('not JSON', r'a.json, line 1: not JSON: .*expected one JSON object a line, or one array of them'),
            ('{"prompt": "a", "policy": "b", "chosen": "c"}\n{"prompt"', r'a.json, line 2: not JSON'),
            ('[{"prompt": "a"}]', r'row 1: no policy or output or response; name the key by --candidate_key'),
            ('[{"policy": "a", "chosen": "b"}]', r'row 1: no prompt or instruction; name the key by --prompt_key'),
            ('[{"prompt": "a", "policy": "b"}]', r'row 1: no chosen or reference; name the key by --baseline_key'),
            ('{"prompt": "a", "policy": "b", "chosen": "c"}\n\n{"prompt": "a", "chosen": "c", "x": 1}',
             r'a.json, line 3: no policy; keys found: prompt, chosen, x'),
            ('[{"prompt": "a", "policy": "b", "chosen": 4}]', r'row 1: chosen must be a text or a list'),
            ('[{"prompt": "a", "policy": "b \\ud83d", "chosen": "c"}]', 'row 1: .*surrogates not allowed'),
            ('[{"prompt": "a \\ud83d", "policy": "b", "chosen": "c"}]', 'row 1: .*surrogates not allowed'),
            ('[{"prompt": [{"role": "tool", "content": ""}], "policy": "b", "chosen": "c"}]', 'role must be one'),
            ('{"samples": [{"prompt": "<|assistant|>", "policy": "b", "chosen": "c"}]}',
             r'row 1: a conversation must start with a turn of the user'),
            ('[{"prompt": "a", "policy": "", "chosen": "c"}, {"prompt": "b", "policy": " ", "chosen": "c"}]',
             r'--samples .*a.json: all 2 answers under policy are empty'),
        ],
    )  # fmt: skip
    def test_a_file_that_is_none(self, tmp_path, text, said):
        (tmp_path / 'a.json').write_text(text, encoding='utf-8')
        with pytest.raises(UserError, match=rf'^--samples {tmp_path}/a.json') as error:
            pair(config(tmp_path / 'a.json'))
        assert error.match(said)

    def test_no_file(self, tmp_path):
        with pytest.raises(UserError, match=r'--samples .*none.json: cannot be read: No such file or directory'):
            read_samples('samples', str(tmp_path / 'none.json'))
        with pytest.raises(UserError, match=r'--samples .*responses.jsonl: cannot be read'):
            read_samples('samples', str(tmp_path))
        with pytest.raises(UserError, match='--samples ~no body/a: cannot be read: Could not determine'):
            read_samples('samples', '~no body/a')

    def test_a_key_that_is_not_there(self, write):
        file = write('a.jsonl', [{'prompt': 'a', 'policy': 'b', 'chosen': 'c'}])
        with pytest.raises(
            UserError, match='line 1: no answer; name the key by --candidate_key; keys found: prompt, pol'
        ):
            pair(config(file, candidate_key='answer'))

    def test_other_prompts(self, write):
        mine = write('a.jsonl', [{'prompt': f'Why {n}?', 'output': 'x'} for n in range(5)])
        other = write('b.jsonl', [{'prompt': f'Why {n}?' + ' long' * 30, 'output': 'x'} for n in range(7)])
        with pytest.raises(UserError) as error:
            pair(config(mine, baseline=str(other)))
        assert str(error.value).endswith(
            "b.jsonl: the same prompts were expected in both; 5 are in --samples alone, such as 'Why 0?'; "
            f"7 are in --baseline alone, such as 'Why 0?{' long' * 10} lon...'; 0 are in both"
        )
        data = write('data.jsonl', [{'prompt': f'Why {n}?', 'completion': 'x'} for n in range(3)])
        with pytest.raises(UserError, match=r"no better answer to 2 of the 5 prompts of --samples, such as 'Why 3\?'"):
            pair(config(mine, datasets=[f'jsonl:1:{data}']))


class TestJudges:
    @pytest.mark.parametrize(
        ('rewards', 'costs', 'verdict'),
        [
            ((2, 1), (), 'candidate'),
            ((1, 2), (), 'baseline'),
            ((1, 1), (), 'tie'),
            ((float('nan'), 1), (), 'unscored'),
            ((1, 2), (0, 0.1), 'candidate'),  # alone safe
            ((2, 1), (0.1, -3), 'baseline'),
            ((2, 1), (-1, -3), 'candidate'),  # both safe: the reward
            ((1, 2), (0, -1), 'baseline'),  # a cost of 0 is safe
            ((2, 1), (3, 2), 'baseline'),  # none safe: the cost
            ((2, 1), (2, 2), 'tie'),
        ],
    )
    def test_safety_comes_before_reward(self, rewards, costs, verdict):
        assert decide(*rewards, *costs) == verdict

    def test_score_models_says_what_it_saw(self):
        def scores(kind, answers):
            assert [turns for turns, _ in answers] == [['a'], ['b'], ['a'], ['b']]
            return [len(text) + (0 if kind == 'reward' else -2) for _, text in answers]

        pairs = [Comparison(['a'], 'x', 'xxx'), Comparison(['b'], 'x', 'y')]
        for cost in (None, 'function:cost'):
            tools = SimpleNamespace(config=SimpleNamespace(cost_model_name_or_path=cost), scores=scores)
            first, second = score_models(tools)(pairs)
            more = {'candidate_cost': -1, 'baseline_cost': 1} if cost else {}
            verdict = 'candidate' if cost else 'baseline'
            assert first == {'verdict': verdict, 'candidate_reward': 1, 'baseline_reward': 3, **more}
            assert second['verdict'] == 'tie'

    def test_the_same_answer_is_a_tie_whatever_rounding_says(self):
        tools = SimpleNamespace(config=SimpleNamespace(cost_model_name_or_path=None), scores=lambda *_: [1.0, 1.0001])
        assert score_models(tools)([Comparison(['a'], 'x', 'x')])[0]['verdict'] == 'tie'

    @pytest.mark.parametrize(
        ('candidate', 'baseline', 'verdict'),
        [
            (' “The  ANSWER”. ', 'an answer', 'candidate'), ('an answer', 'the\nanswer!', 'baseline'),
            ('the answer', 'The answer.', 'tie'), ('a', 'b', 'tie'), ('', 'the answer', 'baseline'),
        ],
    )  # fmt: skip
    def test_exact(self, candidate, baseline, verdict):
        (row,) = exact(None)([Comparison(['q'], candidate, baseline, 'The answer.')])
        assert row['verdict'] == verdict
        assert row['candidate_correct'] == (verdict == 'candidate' or candidate == 'the answer')

    def test_exact_keeps_signs_and_says_nothing_without_a_reference(self):
        (row,) = exact(None)([Comparison(['q'], '-5', '5', '5')])
        assert row == {'verdict': 'baseline', 'candidate_correct': False, 'baseline_correct': True}
        assert exact(None)([Comparison(['q'], 'a', 'b')])[0]['verdict'] == 'unscored'

    def test_the_listing_is_the_registry_and_stands_in_the_docs(self):
        assert [one.name for one in listing(JUDGES)] == ['exact', 'function', 'openai', 'score_models']
        assert all(callable(plugins.load(JUDGES, one.name).judge) for one in listing(JUDGES))
        assert table('judge', listing(JUDGES)) in DOCS.read_text(encoding='utf-8')


def rows_of(verdicts: str, prompts: list[int] | None = None, category: str | None = None) -> list[dict]:
    """Rows with the verdicts that letters stand for, of prompts by their numbers."""
    words = {'w': 'candidate', 'l': 'baseline', 't': 'tie', 'u': 'unscored'}
    numbers = prompts or list(range(len(verdicts)))
    return [
        {'prompt_id': f'{category}{n}', 'verdict': words[one], 'candidate': 'x' * (10 + n % 3), 'baseline': 'x' * 10,
         'category': category} for one, n in zip(verdicts, numbers, strict=True)
    ]  # fmt: skip


class TestSummary:
    def test_wins_ties_and_losses_by_hand(self):
        found = summarise(rows_of('w' * 60 + 'l' * 40 + 'u' * 7))
        assert [found[key] for key in ('wins', 'ties', 'losses', 'unscored')] == [60, 0, 40, 7]
        assert (found['num_prompts'], found['num_comparisons']) == (107, 107)
        assert found['win_rate'] == pytest.approx({'value': 0.6, 'low': 0.502003, 'high': 0.690599, 'n': 100}, abs=1e-6)
        assert found['length_controlled']['n'] == 100
        assert found['candidate_characters']['n'] == 107
        assert found['baseline_characters']['value'] == 10

    def test_the_sign_test_looks_at_what_was_decided(self):
        assert summarise(rows_of('w' * 40 + 'l' * 20 + 't' * 9))['p_value'] == pytest.approx(0.013489, abs=1e-6)

    def test_a_tie_is_half_a_win_and_the_prompt_is_the_unit(self):
        # prompt 0: a win and a tie, .75; prompt 1: a loss, and one unscored, 0; prompt 2: a win, 1; prompt 3: unscored
        found = summarise(rows_of('wtluwu', [0, 0, 1, 1, 2, 3]))
        assert found['win_rate']['value'] == pytest.approx(1.75 / 3)
        assert (found['num_prompts'], found['win_rate']['n'], found['num_comparisons']) == (4, 3, 6)
        assert found['p_value'] == 1.0  # two of three
        copies = summarise([row for row in rows_of('wl' * 10) for _ in range(5)])
        assert copies['win_rate'] == summarise(rows_of('wl' * 10))['win_rate']

    def test_categories_are_counted_apart(self):
        found = summarise([*rows_of('wwl', category='law'), *rows_of('lu', category='arts'), *rows_of('t')])
        assert [(one['category'], one['wins'], one['losses'], one['unscored']) for one in found['categories']] == [
            ('arts', 0, 1, 1), ('law', 2, 1, 0),
        ]  # fmt: skip
        assert found['num_prompts'] == 6
        said = render({**found, 'candidate': 'mine', 'baseline': 'chosen', 'judge': {'name': 'exact'}})
        assert [line.split()[:6] for line in said.splitlines() if line.startswith(('all', 'arts', 'law'))] == [
            ['all', '5', '2', '1', '2', '1'], ['arts', '1', '0', '0', '1', '1'], ['law', '3', '2', '0', '1', '0'],
        ]  # fmt: skip

    def test_the_length_of_each_answer_is_taken_out(self):
        outcomes = [1, 1, 0.5, 1, 0] * 8
        differences = [n % 7 if outcome == 1 else n % 7 - 3 for n, outcome in enumerate(outcomes)]
        rows = rows_of('wwtwl' * 8)
        for row, difference in zip(rows, differences, strict=True):
            row['candidate'] = 'x' * (10 + difference)
        found = summarise(rows)['length_controlled']
        assert found == pytest.approx({**length_controlled(outcomes, differences).win_rate.told(), 'n': 40})
        assert found['value'] < 0.65 < 0.7 == summarise(rows)['win_rate']['value']

    def test_empty_answers_are_told(self):
        rows = rows_of('wl')
        rows[1]['candidate'] = ''
        summary = {**summarise(rows), 'candidate': 'a', 'baseline': 'b', 'judge': {'name': 'exact'}}
        assert (summary['candidate_empty'], summary['baseline_empty']) == (1, 0)
        assert 'empty answers: 1 of the candidate' in render(summary)


class TestResults:
    def line(self) -> dict:
        rows = rows_of('wwtlu')
        summary = {'candidate': 'policy', 'baseline': 'chosen', 'judge': {'name': 'openai', 'model': 'gpt-4-0613'}}
        return result_line(rows, {**summary, **summarise(rows)}, seed=3, exp_name='kto', config={'loss': 'kto'})

    def test_halos_line_and_what_it_lacks(self):
        line = self.line()
        assert list(line)[:8] == ['date', 'total', 'seed', 'exp_name', 'judge', 'candidate', 'baseline', 'config']
        assert (line['total'], line['seed'], line['exp_name'], line['judge']) == (5, 3, 'kto', 'gpt-4-0613')
        assert line['candidate'] == {'name': 'policy', 'wins': 2, 'lengths': [10, 11, 12, 10, 11]}
        assert line['baseline'] == {'name': 'chosen', 'wins': 1, 'lengths': [10] * 5}
        assert line['config'] == {'loss': 'kto'}
        assert list(line)[8:] == ['ties', 'unscored', 'win_rate', 'p_value', 'length_unit']
        assert (line['ties'], line['unscored'], line['win_rate']['n']) == (1, 1, 4)

    def test_a_line_is_added_once_and_half_of_one_is_removed(self, tmp_path, capsys):
        path, line = tmp_path / 'results.jsonl', self.line()
        path.write_text('{"date": "before"}\n{"date": "2026', encoding='utf-8')
        append(path, line)
        append(path, {**line, 'date': 'a moment later'})
        append(path, {**line, 'seed': 4})
        found = [json.loads(row) for row in path.read_text(encoding='utf-8').splitlines()]
        assert found == [{'date': 'before'}, line, {**line, 'seed': 4}]
        assert 'half written' in capsys.readouterr().out

    def test_runs_that_end_together_do_not_mix(self, tmp_path):
        line = self.line()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: append(tmp_path / 'results.jsonl', {**line, 'seed': n}), range(24)))
        found = [json.loads(row)['seed'] for row in (tmp_path / 'results.jsonl').read_text().splitlines()]
        assert sorted(found) == list(range(24))
