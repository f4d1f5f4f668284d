"""A data set is read once: the cache gives what reading gave, and anything that changes the ids changes its key."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors import SafetensorError
from transformers import AutoTokenizer

from safe_align.config import UserError
from safe_align.datasets import RawDataset, tokenized
from safe_align.datasets.rows import KINDS, prompt_hash
from safe_align.datasets.tokenized import cache_dir, tokenize
from safe_align.templates import Template, fingerprint_of

SAMPLES = [
    {'input': 'q', 'answer': 'yes', 'other_answer': 'no', 'better': True, 'safer': False, 'margin': 2},
    {'input': 'q', 'answer': 'yes', 'other_answer': 'yes', 'better': True, 'safer': True},
    {'input': ['q', 'a', 'r'], 'answer': 'one', 'other_answer': 'two', 'better': False, 'safer': True, 'weight': 0.5},
    {'input': '', 'answer': 'yes', 'other_answer': 'no', 'better': True, 'safer': True},
]


class Rows(RawDataset):
    def __init__(self, samples, fingerprint=None):
        super().__init__()
        self.samples, self.known, self.reads = samples, fingerprint, 0

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.reads += 1
        return self.samples[index]

    def fingerprint(self):
        return self.known or super().fingerprint()


@pytest.fixture
def template(tiny):
    return Template(AutoTokenizer.from_pretrained(tiny))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SAFE_ALIGN_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def _assert_equal(one, other) -> None:
    for field in dataclasses.fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, np.ndarray):
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)
        elif field.name == 'fields':
            assert first.keys() == second.keys()
            for key, values in first.items():
                np.testing.assert_array_equal(values, second[key])
    keys = ('name', 'fingerprint', 'rows', 'usable', 'skipped')
    assert [one.meta[key] for key in keys] == [other.meta[key] for key in keys]


def _build(template, samples=SAMPLES, kind='preference', length=99, name='mine', fingerprint='f', strict=False):
    raw = Rows(samples, fingerprint)
    return tokenize(raw, name, kind, template, length, strict), raw.reads


def test_rows_lie_one_after_the_other_and_the_rest_is_counted(template):
    found, _ = _build(template)
    rows = [KINDS['preference'](SAMPLES[n], template, 99) for n in (0, 2)]
    sequences = [sequence for row in rows for sequence in row.sequences]
    assert len(found) == 2
    assert found.tokens.tolist() == [token for one in sequences for span in one for token in span.ids]
    assert found.is_response.tolist() == [span.is_response for one in sequences for span in one for _ in span.ids]
    lengths = [sum(len(span.ids) for span in one) for one in sequences]
    assert np.diff(found.offsets).tolist() == lengths
    assert found.lengths.tolist() == [lengths[0] + lengths[1], lengths[2] + lengths[3]]  # of both answers of a pair
    unknown = {'is_chosen_safe': [-1, -1], 'is_rejected_safe': [-1, -1]}
    fields = {key: values.tolist() for key, values in found.fields.items()}
    sampled = [fields.pop(f'sampled_{side}_logps') for side in ('chosen', 'rejected')]
    assert np.isnan(sampled).all()
    assert fields == {'weight': [1, 0.5], 'margin': [2, 0], **unknown}
    assert found.hashes.tolist() == [prompt_hash(['q']), prompt_hash(['q', 'a', 'r'])]
    assert found.meta['skipped'] == {'identical pair': 1, 'no prompt': 1}
    assert (found.meta['rows'], found.meta['usable']) == (4, 2)


@pytest.mark.parametrize('sample', [{'input': 'a \ud83d'}, {'input': ['q', '\udc00', 'r'], 'answer': 'yes'}])
def test_what_json_can_hold_and_no_tokenizer_reads_is_left_out(sample, template):
    found = tokenize(Rows([{'input': 'q'}, sample]), 'x', 'prompt', template, 64)
    assert (found.meta['usable'], found.meta['skipped']) == (1, {'half of a surrogate pair': 1})


@pytest.mark.parametrize('kind', KINDS)
def test_a_cache_hit_is_equal_and_reads_no_row(kind, template):
    first, reads = _build(template, kind=kind)
    assert reads == len(SAMPLES)
    second, reads = _build(template, kind=kind)
    assert reads == 0
    _assert_equal(first, second)


def test_a_data_set_without_a_usable_row_is_cached_as_well(template):
    first, _ = _build(template, samples=SAMPLES[3:])
    second, reads = _build(template, samples=SAMPLES[3:])
    assert (len(first), len(second), reads) == (0, 0, 0)
    assert len(second.lengths) == 0
    _assert_equal(first, second)


@pytest.mark.parametrize(
    'change',
    [{'fingerprint': 'g'}, {'kind': 'supervised'}, {'kind': 'safety_preference'}, {'length': 98}, {'name': 'other'}],
    ids=str,
)
def test_whatever_changes_the_rows_changes_the_key(change, template, cache):
    _build(template)
    _, reads = _build(template, **change)
    assert reads == len(SAMPLES)
    assert len(list(cache.iterdir())) == 2


def test_the_fingerprint_of_rows_is_their_content():
    assert Rows(SAMPLES).fingerprint() == Rows([dict(sample) for sample in SAMPLES]).fingerprint()
    for changed in (SAMPLES[:3], SAMPLES[::-1], [{**SAMPLES[0], 'margin': 3}, *SAMPLES[1:]]):
        assert Rows(changed).fingerprint() != Rows(SAMPLES).fingerprint()


def test_another_template_or_tokenizer_changes_the_key(template, tiny, cache):
    _build(template)
    _build(Template(template.tokenizer, 'safe-rlhf'))
    other = AutoTokenizer.from_pretrained(tiny)
    other.add_tokens(['yes'])
    assert fingerprint_of(other) != fingerprint_of(template.tokenizer)
    found, reads = _build(Template(other))
    assert reads == len(SAMPLES)
    assert other.convert_tokens_to_ids('yes') in found.tokens
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize('damage', [b'', b'{}', b'\x10\0\0\0\0\0\0\0{"a": nonsense}', 'half'])
def test_a_damaged_file_is_built_again(damage, template, cache):
    first, _ = _build(template)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage == 'half' else damage)
    second, reads = _build(template)
    assert reads == len(SAMPLES)
    _assert_equal(first, second)
    assert _build(template)[1] == 0  # and is whole again


@pytest.mark.parametrize('inside', ['', '/below'])
def test_a_cache_that_cannot_be_made_is_no_error(inside, template, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('in the way')
    monkeypatch.setenv('SAFE_ALIGN_CACHE', f'{tmp_path}/file{inside}')
    assert len(_build(template)[0]) == 2
    assert (tmp_path / 'file').read_text() == 'in the way'


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), SafetensorError('I/O error: ...')])
def test_a_full_disk_is_no_error_and_leaves_nothing(error, template, cache, monkeypatch):
    def save(arrays, path, metadata):
        path.write_bytes(b'half')
        raise error

    monkeypatch.setattr(tokenized, 'save_file', save)
    assert len(_build(template)[0]) == 2
    assert list(cache.iterdir()) == []


def test_strict_names_the_first_row_that_cannot_be_used_from_the_cache_too(template):
    for _ in range(2):
        with pytest.raises(UserError, match='data set mine, row 1: identical pair'):
            _build(template, strict=True)
    assert len(_build(template, samples=SAMPLES[:1], fingerprint='good', strict=True)[0]) == 1


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert cache_dir() == tmp_path / 'cache'
    monkeypatch.delenv('SAFE_ALIGN_CACHE')
    assert cache_dir() == tmp_path / 'safe_align'
