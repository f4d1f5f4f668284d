"""The report without a browser: what is found in a folder, how it is drawn, what is said of what is wrong."""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest
from forks import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from report_files import HOSTILE, lines, project, stage

from safe_align.config import UserError, parse
from safe_align.evaluate.report import ReportConfig, main
from safe_align.evaluate.reporting.answers import as_json, cut, sources_of
from safe_align.evaluate.reporting.axes import ticks
from safe_align.evaluate.reporting.charts import thinned
from safe_align.evaluate.reporting.collect import stages_in
from safe_align.evaluate.reporting.html import Markup, tag
from safe_align.evaluate.reporting.layers import layers_of, places_of
from safe_align.evaluate.reporting.page import page_of
from safe_align.evaluate.reporting.tables import summary_tables
from safe_align.evaluate.reporting.words import duration, interval, number

FLAT = st.floats(-1e6, 1e6, allow_nan=False)


def text_of(page: str) -> str:
    """What a reader could see, without tags."""
    return re.sub(r'<[^>]*>', ' ', re.sub(r'(?s)<(script|style).*?</\1>', '', page))


@contextlib.contextmanager
def ended_at_last(process):
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def fresh(tmp_path: Path) -> Path:
    return project(tmp_path / 'project')


def test_data_can_only_be_text():
    assert tag('p', '<b>&', class_='"x"', hidden=True, id=None) == '<p class="&quot;x&quot;" hidden>&lt;b&gt;&amp;</p>'
    assert tag('line', x1=0) == '<line x1="0"/>'
    assert tag('p', ['a', None, [Markup('<i>'), 1]]) == '<p>a<i>1</p>'
    assert json.loads(as_json([{'p': HOSTILE}])) == [{'p': HOSTILE}]
    assert '<' not in as_json([{'p': HOSTILE}])


def test_stages_are_found_at_any_depth_and_stand_behind_their_parents(folder):
    stages = {stage.label: stage for stage in stages_in(folder)}
    order = list(stages)
    assert set(order) == {'sft', 'rm', 'cm', 'ppo-lag', 'arena', 'judge', 'certificate', 'it1/sft'}
    for one in stages.values():
        assert all(order.index(parent.stage.label) < order.index(one.label) for parent in one.parents if parent.stage)
    parents = {parent.role: parent for parent in stages['ppo-lag'].parents}
    assert {role: one.stage.label for role, one in parents.items()} == {
        'actor model': 'sft', 'reward model': 'rm', 'cost model': 'cm'
    }  # fmt: skip
    (outside,) = stages['sft'].parents
    assert (outside.stage, outside.path, outside.changed) == (None, 'hub/base', False)
    assert not any(parent.changed for one in stages.values() for parent in one.parents)


def test_a_run_that_is_not_finished_is_told_and_what_is_cut_is_left_out(folder):
    (one,) = [stage for stage in stages_in(folder) if stage.label == 'it1/sft']
    assert one.state in ('stopped', 'unfinished')  # the second where a system does not say who holds a lock
    assert [row['step'] for row in one.metrics] == [1, 2, 3]
    assert 'metrics.jsonl: line 4 is cut or damaged and left out' in one.notes
    assert 'it has reached step 3; the same command goes on from step 2' in one.notes


def test_a_lock_that_is_held_is_a_run_that_goes_on(tmp_path):
    if not Path('/proc/locks').is_file():
        pytest.skip('needs /proc/locks')
    folder = fresh(tmp_path)
    code = (
        'import sys; from pathlib import Path; from safe_align.ownership import lock\n'
        'held = lock(Path(sys.argv[1])); print("held", flush=True); sys.stdin.read()'
    )
    command = [sys.executable, '-c', code, folder / 'it1/sft']
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == 'held\n'
        states = {stage.label: stage.state for stage in stages_in(folder)}
        holder.stdin.close()
    assert states['it1/sft'] == 'running'
    assert {state for label, state in states.items() if label != 'it1/sft'} == {'finished'}


def test_a_parent_that_has_changed_and_a_file_that_is_not_as_it_was_are_flagged(tmp_path):
    folder = fresh(tmp_path)
    stage(folder / 'rm', 'reward', 'reward', {'model': folder / 'sft'}, finished=9)
    with (folder / 'arena' / 'table.csv').open('a') as file:
        file.write('more\n')
    stages = {one.label: one for one in stages_in(folder)}
    changed = {(one.label, parent.role) for one in stages.values() for parent in one.parents if parent.changed}
    assert changed == {('ppo-lag', 'reward model'), ('arena', 'reward model')}
    told = text_of(page_of('x', list(stages.values())))
    assert told.count('was made from another content of rm than is there now') == 2
    assert 'not as the stage left it' in stages['arena'].notes[0]


def test_a_folder_that_was_moved_is_still_one_pipeline(tmp_path):
    folder = fresh(tmp_path)
    folder.rename(tmp_path / 'elsewhere')
    stages = stages_in(tmp_path / 'elsewhere')
    assert [parent.path for one in stages for parent in one.parents if parent.stage is None] == ['hub/base']


@pytest.mark.parametrize(('make', 'said'), [
    (lambda folder: None, 'is no folder'),
    (lambda folder: (folder / 'model').mkdir(parents=True), 'holds no output directory of a stage'),
])  # fmt: skip
def test_a_folder_without_stages_is_one_line(make, said, tmp_path):
    make(tmp_path / 'given')
    with pytest.raises(UserError, match=said):
        main(parse(ReportConfig, [str(tmp_path / 'given')]))


def test_the_page_says_what_the_files_say(page):
    told = ' '.join(text_of(page.read_text(encoding='utf-8')).split())
    for words in (
        '8 stages, 1 unfinished', '.jsonl: 38 of 40 rows; left out: 2 empty answer',
        '1 min 22 s', 'threshold −1', 'multiplier λ',
        'certified', '60 prompts, delta 0.1', '0.625 [0.525, 0.725]', 'blue − red, paired', 'judge judge-1',
        'law 4 2 0.5 0.250 [0.041, 0.724]', '1 more curve ', 'it has reached step 3',
    ):  # fmt: skip
        assert words in told, words
    assert 'red says' not in told
    assert page.read_text(encoding='utf-8').count('<script') == 2


def test_files_of_another_form_are_noted_and_nothing_else_suffers(tmp_path):
    folder = fresh(tmp_path)
    (folder / 'certificate' / 'certificate.json').write_text('{"verdict": "certified"}')
    (folder / 'judge' / 'eval.jsonl').write_text('[1]\n"a"\n')
    told = text_of(page_of('x', stages_in(folder)))
    assert 'its files have a form that this page does not know' in told
    assert 'eval.jsonl: line 1 and 1 more is cut or damaged and left out' in told
    assert 'multiplier λ' in told


VALUES = [None, 'x', 7, 10**400, math.nan, math.inf, [], [7], {}, {'x': 7}]


@pytest.mark.parametrize('value', VALUES, ids=lambda value: str(value)[:9])
def test_no_value_of_a_record_takes_the_page_down(value, tmp_path):
    rows = [{'step': 1, 'train/cost': 1.0, 'train/reward': 2.0}, {'step': 2, 'train/cost': 1.5, 'train/reward': 2.0}]
    made = stage(tmp_path / 'sft', 'finetune', 'policy', {'model': 'hub'}, metrics=rows, summary={'red': 1, 'blue': 2})
    whole = json.loads((made / 'safe_align.json').read_text())
    for key in whole:
        (made / 'safe_align.json').write_text(json.dumps({**whole, key: value}))
        page = text_of(page_of('x', stages_in(tmp_path)))
        assert 'sft' in page
        assert 'not as the stage left it' in page


@pytest.mark.parametrize(('key', 'value'), [
    ('arguments', {'datasets': 7}), ('summary', {'kl': {'value': 10**400, 'low': 0, 'high': 1}}),
    ('parents', {'model_name_or_path': {'path': '~nobody at all/sft', 'hash': []}}),
])  # fmt: skip
def test_no_value_within_a_record_takes_the_page_down(key, value, tmp_path):
    made = stage(tmp_path / 'sft', 'finetune', 'policy', {})
    record = json.loads((made / 'safe_align.json').read_text())
    (made / 'safe_align.json').write_text(json.dumps({**record, key: value}))
    assert 'sft' in text_of(page_of('x', stages_in(tmp_path)))


def test_no_file_of_a_stage_takes_the_page_down(tmp_path):
    folder = fresh(tmp_path)
    rows = [json.loads(line) for line in (folder / 'certificate' / 'costs.jsonl').read_text().splitlines()]
    (folder / 'certificate' / 'costs.jsonl').write_text(lines([{**rows[0], 'cost': math.inf}, *rows[1:]]))
    (folder / 'sft' / 'manifest.json').write_text('3')
    (folder / 'rm' / 'manifest.json').write_text('[' * 100_000)
    (folder / 'judge' / 'eval.jsonl').write_text('[' * 100_000)
    (folder / 'it1' / 'sft' / 'checkpoints' / 'step-10.copied').mkdir(parents=True)
    told = text_of(page_of('x', stages_in(folder)))
    assert 'a form that this page does not know ' in told
    assert 'eval.jsonl: line 1 is cut or damaged' in told
    assert 'multiplier λ' in told


def test_a_line_ends_with_a_line_feed_and_with_nothing_else(tmp_path):
    rows = [{'prompt': 'one\u2028line\x85', 'red_answer': 'a', 'blue_answer': 'b'}]
    (tmp_path / 'judge').mkdir()
    (tmp_path / 'judge' / 'eval.jsonl').write_text(json.dumps(rows[0], ensure_ascii=False) + '\n', encoding='utf-8')
    stage(tmp_path / 'judge', 'gpt4', 'evaluation', {})
    (one,) = found = stages_in(tmp_path)
    assert [row['p'] for source in sources_of(found) for row in source['rows']] == [rows[0]['prompt']]
    assert one.notes == []


def test_answers_for_which_there_is_no_room_are_cut_and_that_is_said(tmp_path):
    rows = [{'prompt': '7', 'red_answer': 'x' * 5000, 'blue_answer': 'y' * 3000} for _ in range(300)]
    (tmp_path / 'judge').mkdir()
    (tmp_path / 'judge' / 'eval.jsonl').write_text(lines(rows))
    stage(tmp_path / 'judge', 'gpt4', 'evaluation', {})
    (source,) = found = sources_of(stages_in(tmp_path))
    assert len(source['rows']) == 169  # 1,200,000 / (1 + 4,000 + 3,000 + 60)
    assert all(len(row['a'][0][0]) == 4000 and row['a'][0][0].endswith('…') for row in source['rows'])
    assert cut(found)[0] == 'judge/eval.jsonl: the first 169 of 300 rows are here.'
    assert cut(found)[1] == 'judge/eval.jsonl: 300 texts are cut at 4000 characters, and end with ….'


@settings(max_examples=40)
@given(st.lists(FLAT, min_size=1, max_size=200), st.integers(2, 20))
def test_a_thinned_curve_keeps_its_ends_and_every_extreme_of_a_bucket(values, buckets):
    points = list(enumerate(values))
    kept = thinned(points, buckets)
    assert len(kept) <= 2 * buckets + 2
    assert kept == sorted(set(kept))
    assert {points[0], points[-1]} <= set(kept)
    assert {min(values), max(values)} <= {y for _, y in kept}
    if len(points) <= 2 * buckets:
        assert kept == points


@settings(max_examples=40)
@given(FLAT, st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low, width):
    found = ticks(low, low + width)
    assert 1 <= len(found) <= 6
    slack = 1e-6 * (abs(low) + width)
    assert all(low - slack <= tick <= low + width + slack for tick in found)


def test_ticks_and_numbers_by_hand():
    assert ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert ticks(-3, 3) == [-2, 0, 2]
    assert ticks(0, 2e-20) == [0, 5e-21, 1e-20, 1.5e-20, 2e-20]
    assert ticks(5, 5) == [5]
    assert [number(value) for value in (0.5, -3, 1234.5, 123.456, 2e-5, None)] == [
        '0.500', '−3', '1,234', '123.5', '2e−05', '–'
    ]  # fmt: skip
    assert interval({'value': -98.8, 'low': -159.9, 'high': -37.7}) == ('−99', '[−160, −38]')
    assert interval({'value': 0.138, 'low': 0.0, 'high': 341.2}) == ('0.138', '[0, 341]')
    assert interval({'value': 0.5, 'low': 0.4, 'high': 0.61, 'n': 48}) == ('0.500', '[0.400, 0.610], n 48')
    assert interval({'value': 0.5, 'low': None, 'high': None}) == ('0.500', '')
    assert [duration(seconds) for seconds in (0.51, 82.1, 7260, None)] == ['0.5 s', '1 min 22 s', '2 h 1 min', '–']


def test_lines_pass_through_places_that_no_box_takes():
    """a -> b -> c and a -> c: the long line has a place of its own beside b."""
    layers = layers_of(['a', 'b', 'c'], [('a', 'b'), ('b', 'c'), ('a', 'c')])
    assert [set(row) for row in layers.rows] == [{'a'}, {'b', ('a', 1)}, {'c'}]
    assert layers.ways['a', 'c'] == ['a', ('a', 1), 'c']
    widths = {'a': 80, 'b': 80, 'c': 80, ('a', 1): 10}
    places = places_of(layers, widths, 14)
    assert abs(places['b'] - places['a', 1]) >= 45 + 14 - 1e-9
    assert min(places[key] - widths[key] / 2 for key in places) == 0


def test_any_summary_becomes_tables_with_every_number_of_it():
    one = {'value': 0.25, 'low': 0.125, 'high': 0.375}
    summary = {
        'policies': [{'policy': 'a', 'kl': one, 'num_tokens': 72}, {'policy': 'b', 'kl': {**one, 'low': None}}],
        'pairs': [{'policy': 'a', 'opponent': 'b', 'reward': {'win_rate': one, 'p_value': 0.03125, 'ties': 7}}],
        'tasks': {'sums': [{'task': 'sums', 'normalised': one, 'scores': {'exact_str_match': one}}]},
        'share': one, 'temperature': 0.75, 'nothing': None, 'dropped': {'tie': 11},
    }  # fmt: skip
    told = ' '.join(text_of(''.join(summary_tables(summary))).split())
    for words in ('72', '0.03125', '7', 'exact str match', '0.75', 'dropped: tie 11', 'a b 0.250 [0.125, 0.375]'):
        assert words in told, words
    assert told.count('0.250') == 6


def test_the_stage_is_light_and_writes_beside_its_data(folder, tmp_path):
    code = (
        'import runpy, sys; sys.argv = sys.argv[1:]\n'
        'try: runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)\n'
        'finally: print(sorted({"torch", "transformers", "matplotlib", "scipy", "numpy"} & set(sys.modules)))'
    )
    for arguments in ((folder, '--output_file', tmp_path / 'r.html'), ('--help',)):
        command = [sys.executable, '-c', code, 'safe_align.evaluate.report', *arguments]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, '')
        assert ended.stdout.splitlines()[-1] == '[]'
    assert all(flag in ended.stdout for flag in ('FOLDER', '--output_file', '--watch', '--watch_interval'))
    assert (tmp_path / 'r.html').stat().st_size < 3e6


def test_watch_renews_the_page_when_something_changes_and_ends_with_0(tmp_path):
    folder = fresh(tmp_path)
    page = folder / 'report.html'
    command = [sys.executable, '-m', 'safe_align.evaluate.report', folder, '--watch', '--watch_interval', '0.05']
    with ended_at_last(subprocess.Popen(command, cwd=ROOT, stdout=PIPE, stderr=PIPE, text=True)) as watching:
        assert watching.stdout.readline().startswith('report: ')
        assert 'data-renewed="0.05"' in page.read_text(encoding='utf-8')
        before = page.stat().st_mtime_ns
        time.sleep(0.3)
        assert page.stat().st_mtime_ns == before  # the page itself is no change
        with (folder / 'it1/sft/metrics.jsonl').open('a') as file:
            file.write('ss": 1}\n{"step": 5, "train/loss": 2.5}\n')
        while 'reached step 5' not in page.read_text(encoding='utf-8'):  # or the time limit of the run
            assert watching.stdout.readline().startswith('report: ')
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
        assert watching.stderr.read() == ''
    assert 'data-renewed' not in page.read_text(encoding='utf-8')


def test_half_of_a_surrogate_pair_takes_nothing_down(tmp_path):
    folder = fresh(tmp_path)
    path = folder / 'judge/eval.jsonl'
    path.write_text(path.read_text().replace('judged 1', 'judged \\ud83d'))
    assert main(parse(ReportConfig, [str(folder)])) == 0
    assert 'judged ?' in (folder / 'report.html').read_text(encoding='utf-8')


def test_style_and_script_are_packed_with_the_code(tmp_path):
    command = [sys.executable, 'setup.py', '--quiet', 'build_py', '--build-lib', tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    packed = tmp_path / 'safe_align/evaluate/reporting'
    assert {path.name for path in packed.iterdir()} >= {'page.css', 'page.js', 'page.py'}


def test_numbers_of_any_size_are_drawn_or_left_out(tmp_path):
    values = [1e-300, 1e99, 1e308, float('inf'), None, 'x', True, 3]
    rows = [{'step': n, 'train/loss': value, 'train/flat': 0.0} for n, value in enumerate(values)]
    stage(tmp_path / 'sft', 'finetune', 'policy', {}, metrics=rows)
    page = page_of('x', stages_in(tmp_path))
    assert 'loss by step. training: 1e−300 at step 0, 3 at step 7' in page
    drawn = re.findall(r'points="([^"]*)"', page)
    assert drawn
    assert not any('nan' in points or 'inf' in points for points in drawn)
