"""Held-out evaluation of reward and cost models: what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from safe_align.datasets.rows import prompt_hash
from safe_align.evaluate.agreement import summarise

EXAMPLE = Path(__file__).parents[2] / 'examples/score_functions.py'
HERE = ('--log_type', 'none', '--bf16', False)
BREVITY = ('evaluate.reward', '--model_name_or_path', 'function:brevity', '--plugin', EXAMPLE, *HERE)
FIGURES = {f'{name}.{suffix}' for name in ('distribution', 'calibration') for suffix in ('png', 'pdf')}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def summary(directory: Path) -> dict:
    return json.loads((directory / 'summary.json').read_text(encoding='utf-8'))


def write(path: Path, rows: list[dict]) -> str:
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return f'jsonl:1:{path}'


def test_a_cost_model_s_scores_are_those_of_transformers(ends, chain, starter, tmp_path):
    call = (
        'evaluate.cost', '--model_name_or_path', chain / 'cost', '--datasets', f'jsonl:1:{starter / "test.jsonl"}',
        *HERE,
    )  # fmt: skip
    code, said = ends(*call)
    assert code == 0, said
    rows, told = lines(tmp_path / 'out/scores.jsonl'), summary(tmp_path / 'out')
    given = {f'{prompt_hash([row["prompt"]]):016x}': row for row in lines(starter / 'test.jsonl')}
    assert len(rows) == len(given) == told['num_pairs'] == 48
    tokenizer = AutoTokenizer.from_pretrained(chain / 'cost')
    model = AutoModelForSequenceClassification.from_pretrained(chain / 'cost')
    for row in rows[:6]:
        raw = given[row['prompt']]
        for side, number in (('safer', raw['safer_response_id']), ('unsafer', 1 - raw['safer_response_id'])):
            text = tokenizer.apply_chat_template([{'role': 'user', 'content': raw['prompt']}], tokenize=False,
                                                 add_generation_prompt=True)  # fmt: skip
            ids = tokenizer(f'{text}{raw[f"response_{number}"]}<|im_end|>', add_special_tokens=False)['input_ids']
            with torch.no_grad():
                assert row[f'{side}_cost'] == pytest.approx(model(torch.tensor([ids])).logits.item(), abs=1e-4)
            assert row[f'is_{side}_safe'] is raw[f'is_response_{number}_safe']
    expected = json.loads(json.dumps(summarise(rows, 'cost')))
    assert {name: told[name] for name in expected} == expected
    assert {path.name for path in (tmp_path / 'out').iterdir()} >= FIGURES
    assert all((tmp_path / 'out' / name).stat().st_size > 5000 for name in FIGURES)
    before = (tmp_path / 'out/scores.jsonl').read_bytes()
    assert 'holds this run, finished' in ends(*call)[1]
    assert (tmp_path / 'out/scores.jsonl').read_bytes() == before


def test_prompts_that_the_model_was_trained_on_are_told(ends, chain, starter, tmp_path):
    datasets = f'jsonl:24/-1:{starter / "train.jsonl"}'
    code, said = ends('evaluate.reward', '--model_name_or_path', chain / 'reward', '--datasets', datasets, *HERE)
    assert code == 0, said
    (note,) = summary(tmp_path / 'out')['notes']
    assert note == 'the model was trained on 24 of these 24 prompts, which are not held out'


def test_repeats_count_once_and_two_processes_say_what_one_does(ends, stages, starter, tmp_path):
    raw = lines(starter / 'test.jsonl')[:9]
    swapped = {**raw[0], **{f'response_{n}': raw[0][f'response_{1 - n}'] for n in (0, 1)},
               'better_response_id': 1 - raw[0]['better_response_id']}  # fmt: skip
    labelled = [{**row, 'category': 'even' if n % 2 == 0 else 'odd'} for n, row in enumerate([*raw, raw[3], swapped])]
    call = (*BREVITY, '--datasets', write(tmp_path / 'rows.jsonl', labelled), f'jsonl:4/-1:{starter / "train.jsonl"}')
    assert ends(*call)[0] == 0
    rows, told = lines(tmp_path / 'out/scores.jsonl'), summary(tmp_path / 'out')
    assert (told['num_pairs'], told['num_repeated']) == (13, 2)
    assert [(one['category'], one['num_pairs']) for one in told['categories']] == [('even', 5), ('odd', 4)]
    assert [one['num_pairs'] for one in told['datasets']] == [9, 4]
    words = {f'{prompt_hash([row["prompt"]]):016x}': row for row in raw}
    for row in rows[:9]:
        chosen = words[row['prompt']][f'response_{words[row["prompt"]]["better_response_id"]}']
        assert row['chosen_reward'] == pytest.approx(1 - abs(len(chosen.split()) - 40) / 40)
    started = stages.launch(2, f'safe_align.{call[0]}', *call[1:], '--output_dir', tmp_path / 'two')
    assert [one.wait() for one in started] == [0, 0], '\n'.join(one.said for one in started)
    assert lines(tmp_path / 'two/scores.jsonl') == rows
    assert summary(tmp_path / 'two') == told


def test_several_pairs_of_a_prompt_are_numbered_and_labels_may_be_missing(ends, tmp_path):
    rows = [
        {'prompt': 'Why?', 'response_0': 'one', 'response_1': f'call +49 30 123456{n}', 'safer_response_id': 0,
         **({'is_response_0_safe': True, 'is_response_1_safe': False} if n else {})}
        for n in range(3)
    ]  # fmt: skip
    code, said = ends('evaluate.cost', '--model_name_or_path', 'function:contact_details', '--plugin', EXAMPLE,
                      '--datasets', write(tmp_path / 'rows.jsonl', rows), *HERE)  # fmt: skip
    assert code == 0, said
    written, told = lines(tmp_path / 'out/scores.jsonl'), summary(tmp_path / 'out')
    assert [row['sample'] for row in written] == [0, 1, 2]
    assert [row['is_unsafer_safe'] for row in written] == [None, False, False]
    assert len({row['safer'] for row in written}) == 1
    assert (told['num_prompts'], told['num_pairs'], told['sign']['num_responses']) == (1, 3, 3)
    assert told['sign']['accuracy']['value'] == told['accuracy']['value'] == told['sign']['auc']['value'] == 1.0


def test_what_cannot_be_evaluated_is_one_line(fails, chain, tiny, starter, tmp_path):
    data = ('--datasets', f'jsonl:1:{starter / "test.jsonl"}')
    said = fails('evaluate.reward', '--model_name_or_path', chain / 'cost', *data, *HERE)
    assert 'a cost model, where a reward model was expected' in said
    assert 'where a cost model was expected' in fails('evaluate.cost', '--model_name_or_path', tiny, *data, *HERE)
    said = fails(*BREVITY, '--datasets', write(tmp_path / 'rows.jsonl', [{'prompt': 'Why?', 'response': 'So.'}]))
    assert "no row can be used as preference: 1 no label 'better'" in said
    assert 'function:brevit: no such score function (did you mean brevity?)' in fails(
        'evaluate.cost', '--model_name_or_path', 'function:brevit', '--plugin', EXAMPLE, *data, *HERE
    )
