"""Several data sets as one: each draws by itself, and no prompt is on both sides of a split."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from safe_align.config import UserError
from safe_align.datasets import RawDataset
from safe_align.datasets.mixture import Mixture, build
from safe_align.templates import Template


@pytest.fixture(scope='module')
def template(tiny):
    return Template(AutoTokenizer.from_pretrained(tiny))


@pytest.fixture
def write(tmp_path):
    """`write('a', 10)` is the path of a data set of 10 rows, with prompts of its own."""

    def make(name: str, count: int, prompts: int | None = None) -> str:
        path = tmp_path / f'{name}.jsonl'
        rows = [{'prompt': f'{name} {n % (prompts or count)}', 'completion': f'answer {n}'} for n in range(count)]
        path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        return str(path)

    return make


def _drawn(mixture: Mixture, part: int = 0) -> list[int]:
    return mixture.rows[mixture.rows[:, 0] == part, 1].tolist()


def _prompts(mixture: Mixture) -> list[str]:
    return [turns[0] for turns in mixture.turns()]


@pytest.mark.parametrize(
    ('proportion', 'count'),
    [('', 10), ('1', 10), ('0.5', 5), ('1/3', 3), ('2', 20), ('2.5', 25), ('7/-1', 7), ('23/-1', 23), ('10/-1', 10)],
)
def test_a_proportion_is_whole_copies_and_a_rest_without_repeats(proportion, count, write, template):
    mixture = build([f'jsonl:{proportion}:{write("a", 10)}'], 'supervised', template, 99, seed=1)
    assert len(mixture) == count == mixture.report[0]['used']
    times = Counter(_drawn(mixture))
    # 25 of 10 are two copies of each row, and 5 rows a third time
    assert set(times.values()) <= {count // 10, count // 10 + 1}
    assert sum(times.values()) == count


def test_the_draw_depends_on_the_seed(write, template):
    spec = [f'jsonl:0.5:{write("a", 40)}']
    first, again, other = (_drawn(build(spec, 'supervised', template, 99, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_another_data_set_changes_no_draw(write, template):
    specs = [f'jsonl:0.5:{write("a", 40)}', f'jsonl:0.3:{write("b", 20)}', f'jsonl:2:{write("c", 5)}']
    alone = [_drawn(build([spec], 'supervised', template, 99, seed=3)) for spec in specs]
    mixture = build(specs, 'supervised', template, 99, seed=3)
    assert [_drawn(mixture, part) for part in range(3)] == alone
    assert [part['used'] for part in mixture.report] == [20, 6, 10]
    backwards = build(specs[::-1], 'supervised', template, 99, seed=3)
    assert [_drawn(backwards, part) for part in (2, 1, 0)] == alone


def test_another_data_set_changes_no_split(write, template):
    spec, other = f'jsonl:1:{write("a", 40)}', f'jsonl:1:{write("b", 30)}'
    _, alone = build([spec], 'supervised', template, 99, seed=3).split(0.2, seed=3)
    _, both = build([spec, other], 'supervised', template, 99, seed=3).split(0.2, seed=3)
    assert len(alone) == 8  # a fifth of 40
    assert set(_prompts(alone)) == {prompt for prompt in _prompts(both) if prompt.startswith('a')}
    assert len(both) == 8 + 6


def test_a_split_has_no_prompt_on_both_sides(write, template):
    # 30 rows of 10 prompts, some drawn twice; 'other' has the same prompts as 'a', but for spaces
    path = write('a', 30, prompts=10)
    other = path.replace('a.jsonl', 'other.jsonl')
    with open(path) as source, open(other, 'w') as file:
        file.write(source.read().replace('"a ', '" a  '))
    mixture = build([f'jsonl:1.5:{path}', f'jsonl:1:{other}'], 'supervised', template, 99, seed=0)

    @settings(deadline=None, max_examples=40)
    @given(st.floats(0, 1), st.integers(0, 1000))
    def check(ratio, seed):
        train, held_out = mixture.split(ratio, seed)
        assert len(train)
        assert len(held_out)
        assert not set(train.hashes.tolist()) & set(held_out.hashes.tolist())
        pairs = [tuple(row) for half in (train, held_out) for row in half.rows.tolist()]
        assert Counter(pairs) == Counter(map(tuple, mixture.rows.tolist()))

    check()


def test_one_prompt_cannot_be_split(write, template):
    mixture = build([f'jsonl:1:{write("a", 5, prompts=1)}'], 'supervised', template, 99, seed=0)
    with pytest.raises(UserError, match=r'--eval_split_ratio 0.5: 1 prompt\(s\) cannot be split'):
        mixture.split(0.5, seed=0)


def test_prompts_are_kept_once_each(write, template):
    specs = [f'jsonl:2:{write("a", 9, prompts=3)}', f'jsonl::{write("b", 4)}']
    mixture = build(specs, 'prompt', template, 99, seed=0)
    assert sorted(_prompts(mixture)) == ['a 0', 'a 1', 'a 2', 'b 0', 'b 1', 'b 2', 'b 3']
    assert [part['used'] for part in mixture.report] == [3, 4]


def test_lengths_and_hashes_and_turns_are_those_of_each_row(write, template):
    mixture = build([f'jsonl:0.5:{write("a", 8)}', f'jsonl:1:{write("b", 3)}'], 'supervised', template, 99, seed=0)
    for (part, row), length, hashed, turns in zip(
        mixture.rows, mixture.lengths, mixture.hashes, mixture.turns(), strict=True
    ):
        assert length == mixture.parts[part].lengths[row]
        assert hashed == mixture.parts[part].hashes[row]
        assert turns == [f'{"ab"[part]} {row}']
    half = mixture.take(np.arange(len(mixture)) % 2 == 0)
    assert half.lengths.tolist() == mixture.lengths[::2].tolist()


def test_a_data_set_with_no_usable_row_is_no_harm_beside_another(write, template, tmp_path):
    (tmp_path / 'empty.jsonl').write_text('{"prompt": "q", "completion": " "}\n')
    specs = [f'jsonl:1:{tmp_path}/empty.jsonl', f'jsonl:1:{write("a", 3)}']
    mixture = build(specs, 'supervised', template, 99, seed=0)
    assert len(mixture) == 3
    assert mixture.report[0]['skipped'] == {'no answer': 1}
    assert mixture.lengths.min() > 0


def test_empty_data_names_the_reasons(write, template, tmp_path):
    path = tmp_path / 'bad.jsonl'
    rows = [{'prompt': 'q', 'completion': ' '}] * 2 + [{'prompt': ' ', 'completion': 'a'}]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    with pytest.raises(
        UserError, match=f'^--datasets jsonl:1:{path}: no row can be used as supervised: 2 no answer, 1 em'
    ):
        build([f'jsonl:1:{path}'], 'supervised', template, 99, seed=0, flag='--datasets')
    with pytest.raises(UserError, match="no row can be used as preference: 3 no label 'better'"):
        build([f'jsonl:1:{write("a", 3)}'], 'preference', template, 99, seed=0)
    with pytest.raises(UserError, match='4 prompt too long; --max_length leaves 3 tokens for a prompt'):
        build([f'jsonl:1:{write("b", 4)}'], 'prompt', template, 3, seed=0)
    with pytest.raises(UserError, match='the proportions leave no row'):
        build([f'jsonl:0:{write("c", 4)}'], 'prompt', template, 99, seed=0)


@pytest.mark.parametrize('proportion', ['1e300', '1e12', f'{10**12}/-1'])
def test_more_rows_than_a_run_can_draw_are_refused(proportion, write, template):
    with pytest.raises(UserError, match=r'--train_datasets jsonl.* which are more than 1000000000'):
        build([f'jsonl:{proportion}:{write("a", 10)}'], 'supervised', template, 99, seed=1)


def test_rows_that_all_weigh_nothing_are_refused(template, tmp_path):
    row = json.dumps({'prompt': 'q', 'completion': 'a', 'weight': 0}) + '\n'
    (tmp_path / 'rows.jsonl').write_text(2 * row)
    with pytest.raises(UserError, match='every row has weight 0'):
        build([f'jsonl:1:{tmp_path}/rows.jsonl'], 'supervised', template, 99, seed=1)


def test_a_data_set_of_ones_own_that_fails_is_one_line(template, monkeypatch):
    monkeypatch.setattr(RawDataset, '_registry', {})

    class Mine(RawDataset):
        NAME = 'mine'

        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise KeyError('x')

    for spec, message in (('mine', "Mine: KeyError: 'x'"), ('mine:0', 'the proportions leave no row')):
        with pytest.raises(UserError, match=f'^--train_datasets {spec}: {message}'):
            build([spec], 'supervised', template, 99, seed=1)


def test_strict_data_names_the_row(template, tmp_path):
    (tmp_path / 'bad.jsonl').write_text('{"prompt": "q", "completion": "a"}\n{"prompt": "q", "completion": " "}\n')
    with pytest.raises(UserError, match='data set jsonl, row 1: no answer'):
        build([f'jsonl:1:{tmp_path}/bad.jsonl'], 'supervised', template, 99, seed=0, strict=True)


def test_a_data_set_given_twice_is_refused(write, template):
    spec = f'jsonl:1:{write("a", 3)}'
    with pytest.raises(UserError, match='this data set is given twice'):
        build([spec, spec.replace(':1:', ':0.5:')], 'supervised', template, 99, seed=0)


def test_a_file_draws_the_same_rows_wherever_it_lies(tiny, starter, tmp_path):
    template = Template(AutoTokenizer.from_pretrained(tiny))
    moved = tmp_path / 'elsewhere.jsonl'
    moved.write_bytes((starter / 'train.jsonl').read_bytes())
    drawn = [
        _drawn(build([f'jsonl:0.25:{path}'], 'prompt', template, 256, seed=1))
        for path in (starter / 'train.jsonl', moved)
    ]
    assert drawn[0] == drawn[1]


def test_rows_that_were_cut_are_counted_among_those_that_are_drawn(template, tmp_path):
    path = tmp_path / 'rows.jsonl'
    rows = [{'prompt': f'question {n}', 'completion': 'word ' * (30 * (n % 2) + 1)} for n in range(20)]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    for proportion in ('1', '0.3', '2'):
        mixture = build([f'jsonl:{proportion}:{path}'], 'supervised', template, 40, seed=3)
        assert mixture.report[0]['cut'] == sum(row % 2 for row in _drawn(mixture))
