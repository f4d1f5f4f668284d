"""A bound of the user's own: a --plugin file, recorded by its content, and needed again to check a certificate."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from safe_align import plugins
from safe_align.evaluate.certification.certificate import bound_names, read

STAGE = 'evaluate.safety_test'
BOUND = """
import numpy as np

ASSUMES = 'independent prompts, and nothing else'
TARGET = 'mean'
FINITE_SAMPLE = True
NEEDS_RANGE = True
MIN_COSTS = 2


def upper_bound(costs, *, delta, low, high):
    return np.mean(costs) + (high - low) * (-np.log(delta) / 2 / len(costs)) ** 0.5
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """No other test knows these bounds; a file that has changed is read again."""
    own, known = {}, set(plugins.sys.modules)
    monkeypatch.setattr(plugins, '_own', own)

    def forget():
        own.clear()
        for name in set(plugins.sys.modules) - known:
            if name.startswith('safe_align_plugin_'):
                del plugins.sys.modules[name]

    yield forget
    forget()


@pytest.fixture
def call(tmp_path) -> tuple:
    """100 answers, 10 of them unsafe; Hoeffding's bound is .1 + .1073."""
    (tmp_path / 'mine.py').write_text(BOUND, encoding='utf-8')
    path = tmp_path / 'given.jsonl'
    path.write_text(
        ''.join(json.dumps({'prompt': n, 'cost': -1 if n % 10 else 1}) + '\n' for n in range(100)), encoding='utf-8'
    )
    return (STAGE, '--costs', path, '--threshold', 0.21, '--plugin', tmp_path / 'mine.py', '--bound', 'mine')


def test_a_file_that_is_a_bound_is_one_by_its_name(ends, fails, forgotten, call, tmp_path):
    assert ends(*call)[0] == 0
    (one,) = read((tmp_path / 'out/certificate.json').read_bytes())['constraints']
    assert one['value'] == pytest.approx(0.2072983)
    assert one['assumes'] == 'independent prompts, and nothing else'
    digest = hashlib.sha256((tmp_path / 'mine.py').read_bytes()).hexdigest()
    assert one['bound_file'] == {'name': 'mine.py', 'sha256': digest}
    text = (tmp_path / 'out/README.md').read_text(encoding='utf-8')
    assert f'a file of its own, mine.py (SHA-256 {digest}); its author alone says that it is one.' in text
    assert '--verify certificate.json --plugin mine.py`' in text
    verify = (STAGE, '--verify', tmp_path / 'out/certificate.json')
    assert ends(*verify, '--plugin', tmp_path / 'mine.py') == (0, '')
    forgotten()
    said = ends(*verify, '--output_dir', 'x')[1]
    assert 'rests on the bound mine, which is a file of its own, mine.py; give that file with --plugin' in said
    (tmp_path / 'mine.py').write_text(f'{BOUND}# another\n', encoding='utf-8')
    said = ends(*verify, '--plugin', tmp_path / 'mine.py', '--output_dir', 'x')[1]
    assert 'not valid: constraint 1: bound_file is another' in said


@pytest.mark.parametrize(
    ('change', 'part'),
    [
        (('MIN_COSTS', 'LEAST'), 'has upper_bound and no MIN_COSTS; help(safe_align.bounds) says what'),
        (("TARGET = 'mean'", '1 / 0'), 'ZeroDivisionError: division by zero'),
        (('return np', "raise KeyError('x')\n    return np"), "--bound mine: KeyError: 'x'"),
        (('return np.mean(costs)', 'return np.nan * np.mean(costs)'), '--bound mine: gave nan, where a finite number'),
        (('FINITE_SAMPLE = True', 'FINITE_SAMPLE = False'), '--bound mine: a rate of rare harms is not normal'),
    ],
)
def test_a_file_that_is_no_bound_is_refused(fails, call, tmp_path, change, part):
    (tmp_path / 'mine.py').write_text(BOUND.replace(*change), encoding='utf-8')
    assert part in fails(*call)
    assert not (tmp_path / 'given.jsonl.ledger').exists()


def test_a_name_is_taken_once_and_a_bound_without_its_file_is_unknown(fails, forgotten, call, tmp_path):
    shutil.copy(tmp_path / 'mine.py', tmp_path / 'betting.py')
    said = fails(*call, '--plugin', tmp_path / 'betting.py')
    assert f'--plugin {tmp_path / "betting.py"}: safe_align.bounds has a betting already; give the file another' in said
    (tmp_path / 'two').mkdir()
    shutil.copy(tmp_path / 'mine.py', tmp_path / 'two/mine.py')
    assert 'has a mine already' in fails(*call, '--plugin', tmp_path / 'mine.py', tmp_path / 'two/mine.py')
    forgotten()
    assert 'mine' not in bound_names()
    assert '--bound mine; expected one of anderson' in fails(*call[:-4], '--bound', 'mine')
