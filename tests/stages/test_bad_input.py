"""What a user can get wrong ends in one line that says what and where, exit code 2, and nothing half on disk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest


def lines(path: Path, *rows: dict) -> Path:
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


GOOD = {'prompt': 'Why?', 'completion': 'Because.'}
BAD_FLAGS = [
    (('--datasets', 'alpcaa'), 'unknown data set', 'did you mean alpaca?'),
    (('--datasets', 'jsonl:many:x.jsonl'), "'many' is not a number"),
    (('--datasets', 'jsonl:-1:x.jsonl'), 'at least 0'),
    (('--datasets', 'jsonl:1:/nowhere/rows.jsonl'), '/nowhere/rows.jsonl'),
    (('--datasets', 'jsonl'), 'jsonl', 'path'),
    (('--learning_rat', '1'), 'unknown flag --learning_rat', 'did you mean --learning_rate?'),
    (('--need_eval', 'perhaps'), '--need_eval', "'perhaps' is neither True nor False"),
    (('--lr', 'fast'), '--lr', 'fast'),
    (('--lr', '-1'), '--lr -1.0: must be at least 0'),
    (('--epochs', '0'), '--epochs 0: must be at least 1'),
    (('--lr_scheduler_type', 'wavy'), '--lr_scheduler_type', 'wavy', 'cosine'),
    (('--need_eval',), '--need_eval: give --eval_datasets or --eval_split_ratio'),
    (('--need_eval', '--eval_split_ratio', '0'), '--need_eval: give --eval_datasets or --eval_split_ratio'),
    (('--seed', str(2**64)), f'--seed {2**64}: must be at least 0 and at most {2**63 - 1}'),
    (('--fp16',), '--fp16'),
    (('--template', 'chatty'), '--template', 'chatty'),
    (('--plugin', '/nowhere/mine.py'), '--plugin /nowhere/mine.py', 'no such file'),
]


@pytest.mark.parametrize(('arguments', 'parts'), [(flags, parts) for flags, *parts in BAD_FLAGS], ids=str)
def test_a_mistake_in_the_flags_is_named(fails, sft, arguments, parts):
    said = fails(*sft, *arguments)
    assert all(part in said for part in parts), said


def test_a_missing_flag_is_named(fails):
    assert '--model_name_or_path' in fails('finetune', '--datasets', 'alpaca')


@pytest.mark.parametrize(
    ('name', 'text', 'parts'),
    [
        ('a.json', None, ['No such file']),
        ('a.json', '{"lr": 1,', ['not JSON']),
        ('a.json', '[1]', ['a mapping of options was expected']),
        ('a.json', '{"learning_rat": 1}', ['unknown option learning_rat']),
        ('a.json', '{"lr": "fast"}', ['lr: ', 'fast']),
        ('a.json', '{"train_datasets": "alpaca"}', ['train_datasets: ', 'a list was expected']),
        ('a.yaml', 'lr: [1', ['not YAML']),
    ],
)
def test_a_mistake_in_a_config_file_is_named(fails, sft, tmp_path, name, text, parts):
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding='utf-8')
    said = fails(*sft, '--config', path)
    assert all(part in said for part in [f'--config {path}', *parts]), said


def test_a_row_without_an_answer_is_counted_and_with_strict_data_an_error(ends, fails, sft, tmp_path):
    rows = lines(
        tmp_path / 'rows.jsonl', GOOD, {'prompt': 'How?', 'completion': ' '}, {'prompt': 'Who?', 'completion': 'I.'}
    )
    said = fails(*sft, '--datasets', f'jsonl:1:{rows}', '--strict_data')
    assert 'jsonl, row 1: no answer' in said
    code, said = ends(*sft, '--datasets', f'jsonl:1:{rows}')
    assert code == 0
    assert 'jsonl: 2 of 3 rows; left out: 1 no answer' in said
    (data,) = json.loads((tmp_path / 'out/safe_align.json').read_text(encoding='utf-8'))['datasets']
    assert data['skipped'] == {'no answer': 1}


def test_labels_that_contradict_each_other_are_counted(ends, tiny, tmp_path):
    row = {'prompt': 'Why?', 'response_0': 'So.', 'response_1': 'No.', 'better_response_id': 0, 'safer_response_id': 0}
    labels = [(True, False), (False, True), (True, True)]  # the second: the safer answer is the unsafe one
    rows = lines(tmp_path / 'rows.jsonl', *(
        {**row, 'prompt': f'Why {n}?', 'is_response_0_safe': one, 'is_response_1_safe': other}
        for n, (one, other) in enumerate(labels)
    ))  # fmt: skip
    code, said = ends('values.cost', '--model_name_or_path', tiny, '--datasets', f'jsonl:1:{rows}')
    assert code == 0, said
    assert 'left out: 1 contradicting safety labels' in said


def test_nothing_left_of_the_data_is_an_error_that_says_why(fails, sft, lag, tmp_path):
    rows = lines(tmp_path / 'rows.jsonl', {'prompt': 'How?', 'completion': ''}, {'prompt': 'Who?', 'completion': ' '})
    assert 'no row can be used as supervised: 2 no answer' in fails(*sft, '--datasets', f'jsonl:1:{rows}')
    rows = lines(tmp_path / 'none.jsonl')
    assert 'holds no rows' in fails(*sft, '--datasets', f'jsonl:1:{rows}')
    said = fails(*lag, '--max_length', 8)
    assert '8 prompt too long' in said or '264 prompt too long' in said
    assert '--max_length leaves 4 tokens for a prompt' in said


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (('--temperature', 0), '--temperature 0.0: must be at least'),
        (('--top_p', 0.9), '--top_p'),
        (('--ptx_coeff', 1), '--ptx_coeff 1.0: needs --ptx_datasets'),
        (('--max_new_tokens', 96), '--max_new_tokens 96: leaves no room for a prompt'),
        (('--lambda_init', 0), '--lambda_init 0.0: must be at least'),
    ],
)
def test_options_that_ppo_cannot_do_are_refused(fails, lag, arguments, part):
    assert part in fails(*lag, *arguments)


def test_bfloat16_is_refused_where_the_processor_has_none(fails, sft, monkeypatch):
    monkeypatch.setattr('safe_align.engine.can_bf16', lambda: False)
    assert '--bf16: this processor has no bfloat16 arithmetic; use --bf16 False' in fails(*sft, '--bf16')


def test_a_run_whose_numbers_overflow_ends_in_one_line(ends, sft, starter, tmp_path):
    code, said = ends(*sft, '--datasets', f'jsonl:32/-1:{starter / "train.jsonl"}', '--lr', 1e30)
    assert code == 2
    assert 'Traceback' not in said
    (line,) = [line for line in re.split(r'[\r\n]', said) if 'error:' in line]
    assert re.search(r'^safe_align.finetune: error: step \d+: the gradient was not finite for 3 steps in a row', line)
    assert {path.name for path in (tmp_path / 'out').iterdir()} <= {
        '.lock', '.origin.json', 'arguments.json', 'metrics.jsonl',
    }  # fmt: skip


def test_a_directory_that_holds_something_else_is_left_as_it_is(fails, chain, sft, tmp_path):
    assert 'holds another run' in fails(*sft, '--output_dir', chain / 'reward')
    thesis = tmp_path / 'out/thesis.txt'
    thesis.parent.mkdir()
    thesis.write_text('years of work')
    for more in ((), ('--overwrite',)):
        assert 'holds files of something else (thesis.txt, ...)' in fails(*sft, *more)
    assert [path.name for path in thesis.parent.iterdir() if path.name != '.lock'] == ['thesis.txt']


# as processes of their own, from the command line to the exit code


def test_processes_end_with_2_and_one_line(run_stage, stages, sft, chain, tmp_path):
    stage, *options = sft
    (tmp_path / 'file').write_text('x')
    cases = {
        'did you mean alpaca?': ('--datasets', 'alpcaa'),
        'no such directory': ('--model_name_or_path', tmp_path / 'none'),
        'cannot be written: Not a directory': ('--output_dir', tmp_path / 'file/out'),
    }
    command = (f'safe_align.{stage}', *options, '--output_dir', tmp_path / 'out')
    for part, more in cases.items():
        code, said = stages.run(*command, *more)
        assert code == 2
        assert said.startswith(f'safe_align.{stage}: error: ')
        assert said.count('\n') == 1
        assert part in said
    ended = run_stage(*command, '--model_name_or_path', chain / 'reward')  # a process of its own from its first line on
    assert ended.returncode == 2
    assert ended.stderr.startswith(f'safe_align.{stage}: error: ')
    assert ended.stderr.count('\n') == 1
    assert 'a reward model, where a policy model was expected' in ended.stderr
    assert ended.stdout == ''
    assert not (tmp_path / 'out').exists()
