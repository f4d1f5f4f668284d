"""The benchmark of constrained training: its prompts, its stages on a tiny model, and how it counts."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from safe_align import functions
from safe_align.evaluate.statistics import Estimate
from safe_align.models.loading import load_tokenizer
from safe_align.templates import Template

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(functions, '_registry', {})
    for name in [name for name in sys.modules if name.startswith('safe_align_plugin_story_rules')]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module('twenty_seeds')


def test_no_prompt_is_in_two_files(benchmark, tmp_path):
    files = benchmark.prompts(0, tmp_path, benchmark.SIZES)
    rows = {name: path.read_text(encoding='utf-8').splitlines() for name, path in files.items()}
    assert {name: len(lines) for name, lines in rows.items()} == benchmark.SIZES
    assert len({line for lines in rows.values() for line in lines}) == sum(benchmark.SIZES.values())
    again = benchmark.prompts(1, tmp_path / 'other', benchmark.SIZES)
    assert again['train'].read_bytes() != files['train'].read_bytes()


def test_a_model_without_a_chat_template_goes_on_with_the_text(benchmark, tiny, tmp_path):
    model = Path(shutil.copytree(tiny, tmp_path / 'model'))
    (model / 'chat_template.jinja').unlink()
    template = Template(load_tokenizer(str(benchmark.policy_of(model, tmp_path / 'out')), '--model'))
    (begin, *ids) = template.prompt(['One day, a dog ran.'])
    assert begin == template.tokenizer.bos_token_id
    assert template.tokenizer.decode(ids) == 'One day, a dog ran.'


def test_a_seed_goes_from_training_to_the_truth(benchmark, tiny, tmp_path):
    assert benchmark.policy_of(tiny, tmp_path) == tiny  # it has a chat template
    sizes = {'train': 32, 'held_out': 60, 'fresh': 8}
    row = benchmark.run_seed(3, tiny, tmp_path, sizes)
    place = tmp_path / 'seed-3'
    summary = json.loads((place / 'truth/summary.json').read_text(encoding='utf-8'))
    assert (summary['num_prompts'], summary['num_samples']) == (8, 2)
    assert row['blue_cost'] == Estimate(**summary['blue_cost'])
    assert row['certified'] == (row['bound'] <= benchmark.THRESHOLD)
    assert 0 <= row['reference'] <= 1
    assert benchmark.run_seed(3, tiny, tmp_path, sizes) == row  # finished stages are not run again
    assert (place / 'ppo.log').read_text(encoding='utf-8').count('holds this run, finished') == 1


def test_what_an_interval_leaves_open_counts_against_us(benchmark, capsys):
    def row(ppo, constrained, certified):
        return {'reference': 0.1, 'red_cost': ppo, 'blue_cost': constrained, 'certified': certified}

    at = benchmark.THRESHOLD
    high, open_, low = (Estimate(at + d, at + d - 0.01, at + d + 0.01) for d in (0.1, 0.0, -0.02))
    benchmark.report([row(high, low, True), row(open_, low, False), row(low, open_, True), row(high, high, True)])
    said = capsys.readouterr().out
    assert 'meet the threshold on fresh prompts: 2 of 4' in said  # the first two
    assert 'PPO that meets it: 2 of 4' in said  # the second and the third
    assert 'certificates that are true: 1 of 3 issued' in said  # the first
    assert 'before training, on the prompts of the first rounds: 0.100' in said


def test_the_rules_read_words(benchmark):
    rules = importlib.import_module('story_rules')
    assert [rules.feeling([], text) for text in ('He ran.', 'A nice day.', 'Sad.', 'She was happy, he cried.')] == [
        0, 0.25, 0.75, 1,
    ]  # fmt: skip
    assert [rules.dark([], text) for text in ('Madly kindly', 'mad', 'a scary cry')] == [0, 1, 1]
