"""Raw data sets are known by name: those of the house, and a user's own."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from safe_align import plugins
from safe_align.config import UserError
from safe_align.datasets import RawDataset, RawSample

NAMES = {
    'PKU-SafeRLHF-10K/train': ('PKU-Alignment/PKU-SafeRLHF-10K/train',),
    'PKU-SafeRLHF-30K/test': ('PKU-Alignment/PKU-SafeRLHF-30K/test',),
    'PKU-SafeRLHF-30K/train': ('PKU-Alignment/PKU-SafeRLHF-30K/train',),
    'PKU-SafeRLHF/test': ('PKU-Alignment/PKU-SafeRLHF/test',),
    'PKU-SafeRLHF/train': ('PKU-Alignment/PKU-SafeRLHF/train',),
    'alpaca': ('stanford-alpaca',),
    'firefly': (),
    'hh-rlhf-dialogue': ('hh-dialogue',),
    'hh-rlhf-harmless-dialogue': (
        'hh-rlhf-dialogue/harmless-base',
        'hh-harmless-dialogue',
        'hh-dialogue/harmless-base',
    ),
    'hh-rlhf-helpful-dialogue': ('hh-rlhf-dialogue/helpful-base', 'hh-helpful-dialogue', 'hh-dialogue/helpful-base'),
    **{
        f'hh-rlhf-{kind}-preference/{split}': (
            f'hh-rlhf-preference/{kind}-base/{split}',
            f'hh-{kind}-preference/{split}',
            f'hh-preference/{kind}-base/{split}',
        )
        for kind in ('harmless', 'helpful')
        for split in ('train', 'test')
    },
    'hh': ('hh/train', 'Anthropic/hh-rlhf/train'),
    'hh/test': ('Anthropic/hh-rlhf/test',),
    'hh/helpful': ('hh/helpful/train', 'hh_helpful'),
    'hh/helpful/test': ('hh_helpful/test',),
    'hh/harmless': ('hh/harmless/train', 'hh_harmless'),
    'hh/harmless/test': ('hh_harmless/test',),
    'jsonl': (),
    'moss-002-sft': (),
    'moss-003-sft': (),
    'oasst': ('oasst/train', 'OpenAssistant/oasst1/train'),
    'oasst/test': ('OpenAssistant/oasst1/validation',),
    'shp': ('shp/train', 'stanfordnlp/SHP/train'),
    'shp/test': ('stanfordnlp/SHP/test',),
    'ultrabin': ('ultrabin/train', 'HuggingFaceH4/ultrafeedback_binarized/train'),
    'ultrabin/test': ('HuggingFaceH4/ultrafeedback_binarized/test',),
    'ultrafeedback': ('openbmb/UltraFeedback',),
    'ultrafeedback/pop': (),
}

MY_RAW_DATASET = """
from datasets import load_dataset
from safe_align.datasets import RawDataset, RawSample, parse_dataset


class MyRawDataset(RawDataset):
    NAME = 'my-dataset-name'

    def __init__(self, path=None) -> None:
        # Load a dataset from Hugging Face
        self.data = load_dataset(path or 'my-organization/my-dataset')['train']

    def __getitem__(self, index: int) -> RawSample:
        data = self.data[index]
        # Construct a `RawSample` dictionary from your custom dataset item
        return RawSample(
            input=data['col1'],
            answer=data['col2'],
            other_answer=data['col3'],
            better=float(data['col4']) > float(data['col5']),
        )

    def __len__(self) -> int:
        return len(self.data)  # dataset size
"""


@pytest.fixture
def registry(monkeypatch):
    """The registry, as it was before the test once the test is over."""
    RawDataset.names()
    monkeypatch.setattr(RawDataset, '_registry', dict(RawDataset._registry))
    return RawDataset._registry


def define(name, qualname='Mine', **attributes):
    body = {'__len__': lambda self: 1, '__getitem__': lambda self, index: RawSample(input='x'), **attributes}
    return type(qualname, (RawDataset,), {'NAME': name, '__qualname__': qualname, **body})


def test_the_house_offers_what_safe_rlhf_and_halos_do_and_jsonl(registry):
    assert set(NAMES) == {raw.NAME for raw in registry.values() if raw.__module__.startswith('safe_align.')}


def test_the_page_on_data_has_a_table_of_them():
    lines = (Path(__file__).parents[2] / 'docs/data.md').read_text(encoding='utf-8').splitlines()
    first = lines.index('| name | what | licence |') + 2
    table = list(itertools.takewhile(lambda line: line.startswith('|'), lines[first:]))
    names = [name for line in table for name in re.findall('`(.+?)`', line.split('|')[1])]
    assert sorted(names) == sorted(set(NAMES) - {'jsonl'})


@pytest.mark.parametrize('name', NAMES)
def test_an_alias_is_the_same_data_set(name):
    for alias in NAMES[name]:
        assert RawDataset.find(alias) is RawDataset.find(name)
    assert name == RawDataset.find(name).NAME


@pytest.mark.parametrize('name', ['hh-rlhf-preference', 'hh-preference', 'PKU-SafeRLHF'])
def test_no_abstract_base_is_known_by_a_name(name):
    with pytest.raises(UserError, match='unknown data set'):
        RawDataset.find(name)


@pytest.mark.parametrize(
    ('typed', 'nearest'), [('alpacca', 'alpaca'), ('PKU-SafeRLHF/tran', 'PKU-SafeRLHF/train'), ('Alpaca', 'alpaca')]
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(typed, nearest):
    with pytest.raises(UserError) as caught:
        RawDataset.load(typed)
    message = str(caught.value)
    assert f'unknown data set {typed!r} (did you mean {nearest}?)' in message
    assert 'firefly' in message
    assert '--plugin' in message
    assert '\n' not in message


def test_a_class_without_a_name_is_a_base_and_not_a_data_set(registry):
    before = dict(registry)
    type('Base', (RawDataset,), {})
    assert registry == before


def test_a_name_is_taken_once(registry):
    define('mine', 'First')
    with pytest.raises(ValueError, match="'mine' is taken by First"):
        define('mine', 'Second')
    with pytest.raises(ValueError, match="'alpaca' is taken by Alpaca"):
        define('alpaca', 'Third')
    with pytest.raises(ValueError, match="'stanford-alpaca' is taken by Alpaca"):
        define('fourth', 'Fourth', ALIASES=('stanford-alpaca',))


@pytest.mark.parametrize('name', ['', 'a:b', 3])
def test_a_name_that_could_not_be_typed_is_refused(registry, name):
    with pytest.raises(ValueError, match='must be a text without a colon'):
        define(name)


def test_a_data_set_of_the_users_own_lists_iterates_and_has_a_fingerprint(registry):
    raw = define('mine')(path='somewhere')
    assert 'mine' in RawDataset.names()
    assert list(raw) == [{'input': 'x'}]
    assert raw.path == 'somewhere'
    assert raw.fingerprint() == define('mine')().fingerprint()


def test_the_example_of_safe_rlhf_works_from_a_plugin_file(registry, tmp_path, monkeypatch):
    monkeypatch.setattr('datasets.config.HF_DATASETS_CACHE', tmp_path / 'cache')
    plugin = tmp_path / 'my_raw_dataset.py'
    plugin.write_text(MY_RAW_DATASET, encoding='utf-8')
    data = tmp_path / 'clone'
    data.mkdir()
    rows = [{'col1': 'q', 'col2': 'a', 'col3': 'b', 'col4': '2', 'col5': '1.5'}] * 3
    (data / 'train.json').write_text(json.dumps(rows), encoding='utf-8')

    plugins.import_plugin(str(plugin))
    raw = RawDataset.load('my-dataset-name', path=str(data))
    assert len(raw) == 3
    assert raw[2] == {'input': 'q', 'answer': 'a', 'other_answer': 'b', 'better': True}


def test_listing_the_names_needs_neither_torch_nor_the_datasets_library():
    code = (
        'import sys; from safe_align.datasets import RawDataset; RawDataset.names(); '
        'print([name for name in ("torch", "datasets", "transformers", "pyarrow") if name in sys.modules])'
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout == '[]\n'
