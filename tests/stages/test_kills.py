"""The benchmark of kills in small, and that it notices what it looks for."""

from __future__ import annotations

import importlib
import json
import random
import shutil
from pathlib import Path

import pytest

from safe_align.checkpoint import MANIFEST, hash_files, write_json

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture(scope='module')
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module


@pytest.fixture(scope='module')
def whole(benchmark, stages, tmp_path_factory):
    """The tasks, each with the run that nobody killed."""
    return benchmark('kills').tasks(stages, tmp_path_factory.mktemp('kills'))


@pytest.mark.slow
def test_a_dozen_kills_lose_double_and_change_no_row(benchmark, stages, whole, tmp_path):
    tallies = benchmark('kills').kill(stages, whole, tmp_path, 12)
    for tally in tallies.values():
        assert tally.kills.total() >= 6
        assert tally.rows
        assert not tally.faults
    benchmark('kills').report(tallies, 1)


@pytest.mark.slow
def test_a_judge_is_paid_once_by_a_run_that_is_killed(benchmark, stages, tmp_path):
    judge = benchmark('judge_kills')
    found = judge.series(stages, tmp_path / 'alone', 12, 3)
    assert found.is_met(24)
    judge.report({'the stage': found}, 24)


def test_a_judge_that_is_paid_twice_is_noticed(benchmark):
    judge = benchmark('judge_kills')
    counts = {'begun': 24, 'begun_twice': 0, 'delivered': 24, 'paid_twice': 0}
    assert judge.Found(3, counts, 24, 0, True).is_met(24)
    for change in ({'begun': 25, 'begun_twice': 1}, {'delivered': 25}, {'delivered': 23}):
        assert not judge.Found(3, {**counts, **change}, 24, 0, True).is_met(24)
    for journalled, twice, is_same in ((24, 1, True), (23, 0, True), (24, 0, False)):
        assert not judge.Found(3, counts, journalled, twice, is_same).is_met(24)


@pytest.mark.parametrize(
    ('change', 'kinds'),
    [
        (lambda rows: rows, set()),
        (lambda rows: rows[1:], {'lost'}),
        (lambda rows: [*rows, rows[0]], {'doubled'}),
        (lambda rows: [rows[1], rows[0], *rows[2:]], {'changed'}),
        (lambda rows: [{**rows[0], 'response': '?'}, *rows[1:]], {'changed'}),
        (lambda rows: [{**rows[0], 'log_probs': [one - 1e-3 for one in rows[0]['log_probs']]}, *rows[1:]], {'changed'}),
        (lambda rows: [{**rows[0], 'log_probs': [one - 1e-6 for one in rows[0]['log_probs']]}, *rows[1:]], set()),
    ],
)
def test_a_row_that_is_not_as_it_was_is_noticed(benchmark, whole, tmp_path, change, kinds):
    (task,) = whole['safe_align.online.sample']
    compared, place = benchmark('killing.rows'), shutil.copytree(task.whole, tmp_path / 'out')
    rows = change(compared.rows_of(place))
    (place / 'responses.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    write_json(place / MANIFEST, hash_files(place, json.loads((place / MANIFEST).read_text())))
    assert {kind for kind, _ in compared.faults(place, task.whole)} == kinds


def test_what_is_damaged_or_left_behind_is_noticed(benchmark, whole, tmp_path):
    (task,) = whole['safe_align.online.sample']
    place = shutil.copytree(task.whole, tmp_path / 'out')
    (place / 'parts').mkdir()
    (place / 'summary.json').write_text('{}')
    found = benchmark('killing.rows').faults(place, task.whole)
    assert [kind for kind, _ in found] == ['left behind', 'changed']


def test_a_phase_is_what_the_process_itself_came_to(benchmark, tmp_path):
    """Not what one before it has left there."""
    seen, phases = benchmark('killing.runs').Seen, benchmark('killing.runs').PHASES
    moments = [seen.of(tmp_path)]
    (tmp_path / 'parts').mkdir()
    for name, text in (('parts/0.jsonl', '{}\n'), ('summary.json', '{}'), ('manifest.json', '{}')):
        (tmp_path / name).write_text(text)
        moments.append(seen.of(tmp_path))
    assert tuple(moment.phase(moments[0]) for moment in moments) == phases
    assert moments[2].phase(moments[2]) == phases[0]
    assert moments[2].phase(moments[1]) == phases[2]


def test_a_journal_loses_its_end_and_nothing_else(benchmark, tmp_path):
    part = tmp_path / 'parts' / '0.jsonl'
    part.parent.mkdir()
    whole = b'{"a": 1}\n' * 50
    part.write_bytes(whole)
    assert benchmark('killing.runs')._tear(tmp_path, random.Random(0))
    assert whole.startswith(part.read_bytes())
    assert len(whole) - 200 <= part.stat().st_size < len(whole)
