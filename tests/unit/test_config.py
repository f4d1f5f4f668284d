"""A stage's options: flags, files of defaults, and mistakes that are answered in one line."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from safe_align import config
from safe_align.config import UserError, arg, nearest, parse, run, to_dict
from safe_align.finetune.__main__ import FinetuneConfig


def _even(text: str) -> None:
    if len(text) % 2:
        raise UserError(f'{text!r} has an odd number of letters')


@dataclass(kw_only=True, frozen=True)
class Options:
    """Do something."""

    output_dir: str = arg(help='where to')
    train_names: list[str] = arg(
        ['ab'], 'names', aliases=['names'], check=_even, listed=lambda: ['listed_b', 'listed_a']
    )
    lr: float = arg(1e-3, 'rate', aliases=['learning_rate'], low=0, high=1)
    num_steps: int = arg(3, 'steps (100% of them)', low=1)
    kind: Literal['one', 'two'] = arg('one', 'which')
    use_cache: bool = arg(True, 'cache')
    half: bool | None = arg(None, 'half precision')
    limit: int | None = arg(7, 'limit')
    plugin: list[str] = arg([], 'plug-ins')


def _parse(*argv: str) -> Options:
    return parse(Options, ['--output_dir', 'o', *argv])


def _file(tmp_path, options, name='arguments.json') -> str:
    (tmp_path / name).write_text(options if isinstance(options, str) else json.dumps(options))
    return str(tmp_path / name)


def test_defaults_are_those_of_the_fields():
    assert _parse() == Options(output_dir='o')
    assert _parse().train_names is not _parse().train_names


@pytest.mark.parametrize(
    ('argv', 'expected'),
    [
        (['--train_names', 'ab', 'cd'], {'train_names': ['ab', 'cd']}),
        (['--names', 'ab'], {'train_names': ['ab']}),
        (['--train-names=ab'], {'train_names': ['ab']}),
        (['--learning_rate', '1e-5'], {'lr': 1e-5}),
        (['--learning-rate', '1'], {'lr': 1.0}),
        (['--num-steps', '9', '--num_steps', '10'], {'num_steps': 10}),
        (['--kind', 'two'], {'kind': 'two'}),
        (['--limit', '-1'], {'limit': -1}),
    ],
)
def test_flags_may_be_written_with_hyphens_and_by_other_names(argv, expected):
    assert _parse(*argv) == Options(output_dir='o', **expected)


@pytest.mark.parametrize('words', ['true', 'True', 'yes', '1', 'on', None])
def test_true_is_written_in_many_ways(words):
    assert _parse('--half', *([words] if words else [])).half is True


@pytest.mark.parametrize('word', ['false', 'False', 'no', '0', 'OFF'])
def test_false_is_written_in_many_ways(word):
    assert _parse('--use_cache', word).use_cache is False


@pytest.mark.parametrize('flag', ['--no_use_cache', '--no-use-cache', '--use-cache=false'])
def test_no_turns_a_flag_off(flag):
    assert _parse(flag).use_cache is False
    assert _parse(flag, '--use_cache').use_cache is True


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--use_cache', 'flase'], "'flase' is neither True nor False"),
        (['--num_step', '4'], r'unknown flag --num_step \(did you mean --num_steps\?\)'),
        (['--lernin-rate=4'], r'unknown flag --lernin-rate \(did you mean --learning-rate\?\)'),
        (['--zzz'], '^unknown flag --zzz$'),
        (['stray'], 'unrecognized arguments: stray'),
        (['--num_steps', '0'], '--num_steps 0: must be at least 1'),
        (['--lr', '1.5'], '--lr 1.5: must be at least 0 and at most 1'),
        (['--lr', 'nan'], '--lr nan: must be a finite number'),
        (['--lr', 'inf'], '--lr inf: must be a finite number'),
        (['--lr', 'fast'], "invalid float value: 'fast'"),
        (['--num_steps', '1.5'], "invalid int value: '1.5'"),
        (['--kind', 'three'], "--kind.*'three'.*one.*two"),
        (['--train_names', 'ab', 'abc'], "--train_names: 'abc' has an odd number of letters"),
        (['--train_names'], 'expected at least one argument'),
    ],
)
def test_a_mistake_is_one_line_that_names_the_flag(argv, message):
    with pytest.raises(UserError, match=message):
        _parse(*argv)


def test_a_required_flag_must_be_given_somewhere(tmp_path):
    with pytest.raises(UserError, match='required: --output_dir'):
        parse(Options, [])
    assert parse(Options, ['--config', _file(tmp_path, {'output_dir': 'there'})]).output_dir == 'there'


@pytest.mark.parametrize(('text', 'value'), [('-1', -1.0), ('-1e-3', -0.001), ('-.5', -0.5), ('-2.E+1', -20.0)])
def test_a_negative_number_is_a_value_and_no_flag(text, value):
    @dataclass(kw_only=True, frozen=True)
    class Numbers:
        numbers: list[float] = arg(help='some')

    Numbers.__annotations__['numbers'] = list[float]
    assert parse(Numbers, ['--numbers', '0', text]).numbers == [0.0, value]


def test_a_prefix_of_a_flag_is_not_that_flag():
    with pytest.raises(UserError, match='unknown flag --num'):
        _parse('--num', '4')


def test_a_character_that_the_terminal_lacks_ends_no_run(monkeypatch):
    told = io.TextIOWrapper(io.BytesIO(), encoding='latin-1')
    monkeypatch.setattr(sys, 'stdout', told)
    monkeypatch.setattr(sys, 'argv', ['stage', '--output_dir', 'o'])
    run(Options, lambda config: print('é \u4e00', flush=True))
    assert told.buffer.getvalue() == b'\xe9 ?\n'


@pytest.mark.parametrize('suffix', ['json', 'yaml', 'yml'])
def test_what_was_parsed_runs_again_from_its_file(suffix, tmp_path):
    first = _parse('--lr', '3e-5', '--names', 'ab', 'cd', '--no_use_cache', '--half', '--kind', 'two', '--limit', '2')
    text = json.dumps(to_dict(first))
    if suffix != 'json':
        import yaml

        text = yaml.safe_dump(to_dict(first))
    assert parse(Options, ['--config', _file(tmp_path, text, f'a.{suffix}')]) == first


def test_a_real_stage_runs_again_from_its_file(tmp_path):
    argv = ['--output_dir', 'o', '--model-name-or-path', 'm', '--datasets', 'alpaca:0.5', '--zero_stage', '2', '--bf16']
    first = parse(FinetuneConfig, [*argv, '--learning_rate', '1e-6', '--eval_split_ratio', '0.1'])
    assert parse(FinetuneConfig, ['--config', _file(tmp_path, to_dict(first))]) == first


def test_flags_override_the_file(tmp_path):
    path = _file(tmp_path, {'lr': 0.5, 'num_steps': 5, 'use_cache': False, 'train_names': ['xy'], 'limit': None})
    found = _parse('--config', path, '--num_steps', '6', '--use_cache')
    assert found == Options(output_dir='o', lr=0.5, num_steps=6, train_names=['xy'], limit=None)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ('lr: 1e-5', {'lr': 1e-5}),  # to YAML, 1e-5 is a text
        ('lr: 1', {'lr': 1.0}),
        ('use_cache: off', {'use_cache': False}),
        ('half: "yes"', {'half': True}),
        ('train_names: [ab, "1234"]', {'train_names': ['ab', '1234']}),
        ('output_dir: 2024', {'output_dir': '2024'}),
    ],
)
def test_a_file_is_read_as_its_flags_would_be(given, expected, tmp_path):
    path = _file(tmp_path, given, 'a.yaml')
    argv = ['--config', path] if 'output_dir' in given else ['--output_dir', 'o', '--config', path]
    found = parse(Options, argv)
    assert found == Options(**{'output_dir': 'o', **expected})
    assert type(found.lr) is float


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'num_step': 4}, r'unknown option num_step \(did you mean num_steps\?\)'),
        ({'kind': 'three'}, "kind.*'three'.*one, two"),
        ({'num_steps': 1.5}, 'num_steps.*1.5'),
        ({'num_steps': True}, 'num_steps.*True'),
        ({'num_steps': None}, 'num_steps.*None'),
        ({'num_steps': 0}, '--num_steps 0: must be at least 1'),
        ({'lr': 'fast'}, 'lr.*fast'),
        ({'lr': {'a': 1}}, 'lr.*a'),
        ({'use_cache': 'flase'}, "'flase' is neither True nor False"),
        ({'train_names': 'ab'}, 'train_names.*list'),
        ({'train_names': ['abc']}, 'odd number'),
        ('["lr"]', 'a mapping of options was expected'),
        ('{"lr": ', 'not JSON'),
    ],
)
def test_a_mistake_in_a_file_is_one_line(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        _parse('--config', _file(tmp_path, options))


def test_a_file_that_is_missing_or_no_yaml_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r'--config /nowhere.json: No such file or directory'):
        _parse('--config', '/nowhere.json')
    with pytest.raises(UserError, match=r'a.yaml: not YAML'):
        _parse('--config', _file(tmp_path, 'lr: [1', 'a.yaml'))
    with pytest.raises(UserError, match=r'a.json: maximum recursion depth'):
        _parse('--config', _file(tmp_path, '[' * 100_000, 'a.json'))


@pytest.mark.parametrize(
    ('mistake', 'told'),
    [
        (UserError('--lr: two\n lines'), '--lr: two lines'),
        (OSError(5, 'Input/output error', 'a.jsonl'), "[Errno 5] Input/output error: 'a.jsonl'"),
    ],
)
def test_a_user_error_is_one_line_on_stderr_and_exit_code_2(monkeypatch, capsys, mistake, told):
    def main(_):
        raise mistake

    monkeypatch.setattr(sys, 'argv', ['stage.py', '--output_dir', 'o'])
    with pytest.raises(SystemExit) as exit_:
        run(Options, main)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.endswith(f': error: {told}\n')
    assert error.count('\n') == 1


def test_ctrl_c_before_a_stage_listens_to_it_is_no_traceback(monkeypatch, capsys):
    def main(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, 'argv', ['stage.py', '--output_dir', 'o'])
    with pytest.raises(SystemExit) as exit_:
        run(Options, main)
    assert (exit_.value.code, capsys.readouterr().err) == (130, '')


def test_a_stage_that_ends_well_does_not_exit(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['stage.py', '--output_dir', 'o'])
    run(Options, lambda config: 0 if config == Options(output_dir='o') else 1)


def test_help_says_what_there_is_and_lists_names(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['stage', '--help'])
    with pytest.raises(SystemExit) as exit_:
        parse(Options, ['--help'], 'stage')
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for part in (
        'Do something.',
        '--learning_rate',
        'steps (100% of them) (default: 3)',
        'listed_a, listed_b',
        '{one,two}',
    ):
        assert part in text
    assert '--no_use_cache' not in text


def test_plugins_are_imported_before_the_rest_is_checked(tmp_path):
    body = 'from safe_align import config\nconfig.SEEN = getattr(config, "SEEN", 0) + 1\n'
    (tmp_path / 'mine.py').write_text(body)
    _parse('--plugin', f'{tmp_path}/mine.py')
    assert config.SEEN == 1
    _parse('--config', _file(tmp_path, {'plugin': [f'{tmp_path}/mine.py']}))
    assert config.SEEN == 1  # once imported, a file is not imported again
    del config.SEEN


def test_a_plugin_that_cannot_be_imported_is_one_line(tmp_path):
    (tmp_path / 'bad.py').write_text('1 / 0')
    with pytest.raises(UserError, match=f'--plugin {tmp_path}/bad.py: ZeroDivisionError: division by zero'):
        _parse('--plugin', f'{tmp_path}/bad.py')
    (tmp_path / 'script.py').write_text('raise SystemExit(0)')
    with pytest.raises(UserError, match=f'--plugin {tmp_path}/script.py: SystemExit: 0'):
        _parse('--plugin', f'{tmp_path}/script.py')
    with pytest.raises(UserError, match=r'--plugin missing.py: no such file: missing.py'):
        _parse('--plugin', 'missing.py')
    with pytest.raises(UserError, match='--plugin no_such_module'):
        _parse('--plugin', 'no_such_module')


def test_nearest_is_silent_where_nothing_is_near():
    assert nearest('learning_rte', ['learning_rate', 'epochs']) == ' (did you mean learning_rate?)'
    assert nearest('xyz', ['learning_rate']) == ''


def test_a_field_may_be_a_word_without_a_flag():
    @dataclass(kw_only=True, frozen=True)
    class Words:
        """Do something."""

        folder: str = arg(help='where', positional=True)
        num_steps: int = arg(1, 'steps')

    for words in (('here', '--num_steps', '2'), ('--num_steps', '2', 'here')):
        assert parse(Words, words) == Words(folder='here', num_steps=2)
    for words, said in (((), 'FOLDER'), (('here', 'there'), 'unrecognized arguments: there')):
        with pytest.raises(UserError, match=said):
            parse(Words, words)
