"""Rows as they lie on disk become `RawSample`s, or one clear line."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
from pathlib import Path

import pytest
from tables import one_line, write

from safe_align.datasets import RawDataset

DATA = Path(__file__).parents[3] / 'shared/data'

PKU = {
    'prompt': 'q', 'response_0': 'a', 'response_1': 'b', 'is_response_0_safe': True, 'is_response_1_safe': False,
    'better_response_id': 1, 'safer_response_id': 0,
}  # fmt: skip
PKU_SAMPLE = {
    'input': 'q', 'answer': 'a', 'other_answer': 'b', 'better': False, 'safer': True,
    'is_safe': True, 'is_other_safe': False,
}  # fmt: skip
HH = {
    'context': [
        {'role': 'human', 'text': 'q1'},
        {'role': 'assistant', 'text': 'a1'},
        {'role': 'human', 'text': 'q2'},
    ],
    'chosen': {'role': 'assistant', 'text': 'good'},
    'rejected': {'role': 'assistant', 'text': 'bad'},
}
HH_PREFERENCE = {'input': ['q1', 'a1', 'q2'], 'answer': 'good', 'other_answer': 'bad', 'better': True}
HH_DIALOGUE = {'dialogue': ['q1', 'a1', 'q2', 'good']}
TABLES = [
    ('alpaca', {'instruction': 'i', 'input': 'x', 'output': 'o'}, {'input': 'i x', 'answer': 'o'}),
    ('alpaca', {'instruction': 'i', 'input': '', 'output': 'o'}, {'input': 'i', 'answer': 'o'}),
    ('firefly', {'kind': 'k', 'input': 'i', 'target': 't'}, {'input': 'i', 'answer': 't'}),
    ('hh-rlhf-dialogue', HH, HH_DIALOGUE),
    ('hh-rlhf-harmless-dialogue', HH, HH_DIALOGUE),
    ('hh-rlhf-helpful-dialogue', HH, HH_DIALOGUE),
    ('hh-rlhf-harmless-preference/train', HH, HH_PREFERENCE),
    ('hh-rlhf-harmless-preference/test', HH, HH_PREFERENCE),
    ('hh-rlhf-helpful-preference/train', HH, HH_PREFERENCE),
    ('hh-rlhf-helpful-preference/test', HH, HH_PREFERENCE),
    ('PKU-SafeRLHF/train', PKU, PKU_SAMPLE),
    ('PKU-SafeRLHF/test', PKU, PKU_SAMPLE),
    ('PKU-SafeRLHF-30K/train', PKU, PKU_SAMPLE),
    ('PKU-SafeRLHF-30K/test', PKU, PKU_SAMPLE),
    ('PKU-SafeRLHF-10K/train', PKU, PKU_SAMPLE),
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Keep the tables that the `datasets` library makes out of the user's cache."""
    monkeypatch.setattr('datasets.config.HF_DATASETS_CACHE', tmp_path_factory.mktemp('cache'))


@pytest.mark.parametrize(('name', 'row', 'sample'), TABLES)
def test_a_row_of_a_single_file_is_mapped(tmp_path, name, row, sample):
    raw = RawDataset.load(name, path=str(write(tmp_path / 'rows.jsonl', [row, row])))
    assert len(raw) == 2
    assert raw[1] == sample
    assert list(raw) == [sample, sample]


@pytest.mark.parametrize('file', ['a.json', 'a.json.gz', 'a.jsonl', 'a.jsonl.gz', 'a.parquet'])
@pytest.mark.parametrize('directory', [True, False])
def test_a_table_is_read_from_every_kind_of_file(tmp_path, file, directory):
    path = write(tmp_path / 'data' / file, [HH, HH])
    raw = RawDataset.load('hh-rlhf-dialogue', path=str(path.parent if directory else path))
    assert list(raw) == [HH_DIALOGUE, HH_DIALOGUE]
    assert raw.fingerprint() == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def test_a_directory_gives_the_split_that_its_file_names_say(tmp_path):
    write(tmp_path / 'data/train-00000-of-00001.parquet', [PKU] * 3)
    write(tmp_path / 'data/test-00000-of-00001.parquet', [PKU] * 2)
    train, test = (RawDataset.load(f'PKU-SafeRLHF/{split}', path=str(tmp_path)) for split in ('train', 'test'))
    assert (len(train), len(test)) == (3, 2)
    assert train.fingerprint() != test.fingerprint()


def test_a_clone_gives_the_directory_of_the_subset(tmp_path):
    for count, kind in enumerate(('harmless-base', 'helpful-base'), start=1):
        write(tmp_path / kind / 'train.jsonl.gz', [HH] * count)
        write(tmp_path / kind / 'test.jsonl.gz', [HH] * 3 * count)
    counts = {
        'hh-rlhf-harmless-preference/train': 1,
        'hh-rlhf-harmless-preference/test': 3,
        'hh-rlhf-helpful-preference/train': 2,
        'hh-rlhf-helpful-preference/test': 6,
        'hh-rlhf-helpful-dialogue': 2,
        'hh-rlhf-dialogue': 3,
    }
    assert {name: len(RawDataset.load(name, path=str(tmp_path))) for name in counts} == counts
    assert len(RawDataset.load('hh-rlhf-helpful-dialogue', path=str(tmp_path / 'helpful-base'))) == 2


def test_another_subset_does_not_pass_for_the_one_asked_for(tmp_path):
    write(tmp_path / 'helpful-base/train.jsonl', [HH])
    message = one_line('hh-rlhf-harmless-dialogue', tmp_path)
    assert str(tmp_path) in message
    assert 'expected a directory harmless-base' in message


def test_labels_of_pku_that_are_absent_or_null_are_left_out(tmp_path):
    row = {**PKU, 'better_response_id': None}
    del row['is_response_1_safe']
    raw = RawDataset.load('PKU-SafeRLHF/train', path=str(write(tmp_path / 'a.jsonl', [row])))
    assert raw[0] == {'input': 'q', 'answer': 'a', 'other_answer': 'b', 'safer': True, 'is_safe': True}


def test_a_hub_data_set_is_asked_for_by_name_and_split(tmp_path, monkeypatch):
    import datasets

    write(tmp_path / 'test.json', [HH])
    build, asked = datasets.load_dataset_builder, {}

    def hub(path, data_dir):
        asked.update(path=path, data_dir=data_dir)
        return build(str(tmp_path))

    write(tmp_path / 'train.json', [HH, HH])
    monkeypatch.setattr(datasets, 'load_dataset_builder', hub)
    raw = RawDataset.load('hh-rlhf-helpful-preference/test')
    assert asked == {'path': 'PKU-Alignment/processed-hh-rlhf', 'data_dir': 'helpful-base'}
    assert raw[0] == HH_PREFERENCE
    assert raw.fingerprint() == RawDataset.load('hh-rlhf-helpful-preference/test').fingerprint()
    RawDataset.load('hh-rlhf-helpful-preference/test', path='my-organization/my-copy')
    assert asked['path'] == 'my-organization/my-copy'


def test_a_hub_out_of_reach_is_one_line_that_says_what_to_give_instead(monkeypatch):
    import datasets

    def unreachable(**_):
        raise ConnectionError("Couldn't reach 'tatsu-lab/alpaca' on the Hub\nand a long story")

    monkeypatch.setattr(datasets, 'load_dataset_builder', unreachable)
    message = one_line('alpaca', None)
    assert "tatsu-lab/alpaca: Couldn't reach 'tatsu-lab/alpaca' on the Hub;" in message
    assert 'NAME:1:PATH' in message


@pytest.mark.parametrize('path', ['nowhere', './a/b', '/nowhere/at/all', '~nobody/a', 'data/train.json', 'a/b/c'])
def test_a_table_that_does_not_exist_is_named(path):
    assert f'{path}: no such file or directory' in one_line('alpaca', path)


def test_a_missing_column_is_named_when_the_data_set_is_loaded(tmp_path):
    path = write(tmp_path / 'a.jsonl', [{'instruction': 'i', 'output': 'o'}])
    message = one_line('alpaca', path)
    assert str(path) in message
    assert "'input' is missing; the columns found are instruction, output" in message


def test_a_label_that_is_none_is_refused(tmp_path):
    path = write(tmp_path / 'a.jsonl', [{**PKU, 'safer_response_id': 2}])
    assert 'row 0: safer_response_id must be true or false, 1 or 0, found 2' in one_line('PKU-SafeRLHF/train', path)


def test_a_split_that_is_not_there_is_named(tmp_path):
    write(tmp_path / 'train.jsonl', [PKU])
    message = one_line('PKU-SafeRLHF/test', tmp_path)
    assert str(tmp_path) in message
    assert "with a split 'test'" in message


@pytest.mark.parametrize('file', ['a.json', 'a.jsonl', 'a.parquet'])
@pytest.mark.parametrize('content', ['', 'hello {'])
def test_a_file_that_is_no_table_is_named(tmp_path, file, content):
    (tmp_path / file).write_text(content, encoding='utf-8')
    assert f'{file}: ' in one_line('alpaca', tmp_path / file)


def test_a_file_of_an_unknown_kind_is_named(tmp_path):
    (tmp_path / 'a.exe').write_text('x', encoding='utf-8')
    assert 'a.exe: unknown kind of file; expected' in one_line('alpaca', tmp_path / 'a.exe')


def test_an_empty_directory_is_named(tmp_path):
    assert f"{tmp_path}: The directory at {tmp_path} doesn't contain any data" in one_line('alpaca', tmp_path)


def test_a_clone_without_its_large_files_is_told_from_broken_data(tmp_path):
    (tmp_path / 'train.parquet').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\n')
    assert 'train.parquet is a pointer of git-lfs' in one_line('alpaca', tmp_path)


def test_moss_002_is_cut_into_turns(tmp_path):
    text = '[Human]: hi<eoh> [MOSS]:  hello\nyou<eoa> [Human]: why?<eoh> [MOSS]: so [Human]: said<eoa> '
    write(tmp_path / 'b.json', [{'id': 0, 'plain_text': text}])
    write(tmp_path / 'a.json', [{'id': 1, 'plain_text': '[Human]: first<eoh> [MOSS]: yes<eoa>'}])
    raw = RawDataset.load('moss-002-sft', path=str(tmp_path))
    assert list(raw) == [
        {'dialogue': ['first', 'yes']},
        {'dialogue': ['hi', 'hello\nyou', 'why?', 'so [Human]: said']},
    ]
    assert len(raw.fingerprint()) == 32


@pytest.mark.parametrize(
    'text', ['', None, 'hello', '[MOSS]: hi<eoa>', '[Human]: a<eoh> [Human]: b<eoh>', '[Human]: a<eoh> [MOSS]: b']
)
def test_moss_002_names_a_row_that_is_no_conversation(tmp_path, text):
    path = write(tmp_path / 'a.json', [{'plain_text': text}])
    assert f'{path}, row 1: plain_text must be' in one_line('moss-002-sft', tmp_path)


MOSS_003 = {
    'num_turns': 2,
    'chat': {
        'turn_1': {'Human': '<|Human|>: hi<eoh>\n', 'MOSS': '<|MOSS|>: hello<eom>\n', 'Commands': 'None'},
        'turn_2': {'Human': '<|Human|>: why?<eoh>\n', 'MOSS': '<|MOSS|>: so<eom>\n'},
    },
}


def test_moss_003_is_read_from_its_lines_and_from_its_archive_without_writing(tmp_path):
    lines = write(tmp_path / 'lines/moss-003-sft-no-tools.jsonl', [MOSS_003])
    archive = tmp_path / 'archive/moss-003-sft-no-tools.jsonl.zip'
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, 'w') as packed:
        packed.write(lines, lines.name)
    for path in (lines, lines.parent, archive, archive.parent):
        assert list(RawDataset.load('moss-003-sft', path=str(path))) == [{'dialogue': ['hi', 'hello', 'why?', 'so']}]
    assert list(archive.parent.iterdir()) == [archive]


def test_moss_003_names_what_it_misses(tmp_path):
    assert 'no file that ends in moss-003-sft-no-tools.jsonl' in one_line('moss-003-sft', tmp_path)
    path = write(tmp_path / 'moss-003-sft-no-tools.jsonl', [MOSS_003, {**MOSS_003, 'num_turns': 3}])
    assert f"{path}, line 2: KeyError('turn_3'); expected num_turns" in one_line('moss-003-sft', tmp_path)
    bad = tmp_path / 'bad.zip'
    bad.write_text('x', encoding='utf-8')
    assert 'not a zip archive' in one_line('moss-003-sft', bad)


@pytest.mark.parametrize('name', ['moss-002-sft', 'moss-003-sft', 'jsonl'])
def test_a_data_set_that_is_local_needs_a_path_that_exists(name):
    assert f'write {name}:1:PATH' in one_line(name, None)
    assert '/nowhere: no such file or directory' in one_line(name, '/nowhere')


U, A, S = ({'role': role} for role in ('user', 'assistant', 'system'))


def says(*turns):
    return [{**role, 'content': text} for role, text in zip(turns[::2], turns[1::2], strict=True)]


FULL, OTHER = says(U, 'q', A, 'a', U, 'r', A, 'good'), says(U, 'q', A, 'a', U, 'r', A, 'bad')
PAIR = {'input': 'q', 'answer': 'good', 'other_answer': 'bad', 'better': True}
LONG_PAIR = {**PAIR, 'input': ['q', 'a', 'r']}
ONE = {'input': 'q', 'answer': 'a'}
TRANSCRIPT = '\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:'
FORMS = {
    'messages': ({'messages': says(U, 'q', A, 'a')}, ONE),
    'messages of several turns': ({'messages': FULL}, {'dialogue': ['q', 'a', 'r', 'good']}),
    'a system turn goes before the user': ({'messages': says(S, 's', U, 'q', A, 'a')}, {**ONE, 'input': 's\n\nq'}),
    'an empty system turn leaves no trace': ({'messages': says(S, '', U, 'q', A, 'a')}, ONE),
    'neighbours of one role are joined': (
        {'messages': says(U, 'q', U, 'r', A, 'a', A, 'b')},
        {'input': 'q\n\nr', 'answer': 'a\n\nb'},
    ),
    'messages that end with the user': ({'messages': FULL[:3]}, {'input': ['q', 'a', 'r']}),
    'a message without content': ({'messages': says(U, 'q', A, None)}, {'input': 'q', 'answer': ''}),
    'messages beside a prompt': ({'prompt': 'x', 'messages': says(U, 'q', A, 'a')}, ONE),
    'completion': ({'prompt': 'q', 'completion': 'a'}, ONE),
    'completion as messages': ({'prompt': says(U, 'q'), 'completion': says(A, 'a')}, ONE),
    'completion of a conversation': (
        {'prompt': FULL[:3], 'completion': 'good'},
        {'input': ['q', 'a', 'r'], 'answer': 'good'},
    ),
    'completion with a good label': ({'prompt': 'q', 'completion': 'a', 'label': True}, {**ONE, 'better': True}),
    'completion with a bad label': ({'prompt': 'q', 'completion': 'a', 'label': 0}, {**ONE, 'better': False}),
    'completion with a null label': ({'prompt': 'q', 'completion': 'a', 'label': None}, ONE),
    'response': ({'prompt': 'q', 'response': 'a', 'split': 'train'}, ONE),
    'response that is safe': ({'prompt': 'q', 'response': 'a', 'is_safe': True}, {**ONE, 'is_safe': True}),
    'response that is unsafe': ({'prompt': 'q', 'response': 'a', 'is_safe': 0}, {**ONE, 'is_safe': False}),
    'response with a null label': ({'prompt': 'q', 'response': 'a', 'is_safe': None}, ONE),
    'completion with both labels': (
        {'prompt': 'q', 'completion': 'a', 'label': True, 'is_safe': False},
        {**ONE, 'better': True, 'is_safe': False},
    ),
    'pair': ({'prompt': 'q', 'chosen': 'good', 'rejected': 'bad'}, PAIR),
    'pair with a conversation': ({'prompt': FULL[:3], 'chosen': 'good', 'rejected': 'bad'}, LONG_PAIR),
    'pair as messages': ({'prompt': FULL[:3], 'chosen': FULL[3:], 'rejected': OTHER[3:]}, LONG_PAIR),
    'pair that repeats its prompt': ({'prompt': 'q', 'chosen': FULL, 'rejected': OTHER}, LONG_PAIR),
    'pair that repeats its prompt behind a system turn': (
        {'prompt': 'q', 'chosen': says(S, 's', U, 'q', A, 'good'), 'rejected': says(S, 's', U, 'q', A, 'bad')},
        {**PAIR, 'input': 's\n\nq'},
    ),
    'pair with an implicit prompt': ({'chosen': FULL, 'rejected': OTHER}, LONG_PAIR),
    'pair with a weaker pair': (
        {'prompt': 'q', 'chosen': 'good', 'rejected': 'bad', 'weak_chosen': 'fair', 'weak_rejected': 'poor'},
        {**PAIR, 'weak_answer': 'fair', 'weak_other_answer': 'poor'},
    ),
    'pair with a weaker pair as messages': (
        {'chosen': FULL, 'rejected': OTHER, 'weak_chosen': [*FULL[:3], *says(A, 'fair')], 'weak_rejected': OTHER},
        {**LONG_PAIR, 'weak_answer': 'fair', 'weak_other_answer': 'bad'},
    ),
    'pair with a null weaker pair': (
        {'prompt': 'q', 'chosen': 'good', 'rejected': 'bad', 'weak_chosen': None, 'weak_rejected': None},
        PAIR,
    ),
    'pair of transcripts': ({'chosen': f'{TRANSCRIPT} good', 'rejected': f'{TRANSCRIPT} bad'}, LONG_PAIR),
    'pair of plain texts': (
        {'chosen': 'The sky is blue.', 'rejected': 'The sky is black.'},
        {'input': 'The sky is', 'answer': 'blue.', 'other_answer': 'black.', 'better': True},
    ),
    'pair with null messages': ({'prompt': 'q', 'chosen': 'good', 'rejected': 'bad', 'messages': None}, PAIR),
    'PKU-SafeRLHF': (PKU, PKU_SAMPLE),
    'PKU-SafeRLHF without labels': (
        {**PKU, **dict.fromkeys(list(PKU)[3:])},
        {'input': 'q', 'answer': 'a', 'other_answer': 'b'},
    ),
    'PKU-SafeRLHF with a conversation': ({**PKU, 'prompt': FULL[:3]}, {**PKU_SAMPLE, 'input': ['q', 'a', 'r']}),
    'alpaca': ({'instruction': 'i', 'input': 'x', 'output': 'o'}, {'input': 'i x', 'answer': 'o'}),
    'alpaca without input': ({'instruction': 'i', 'input': '', 'output': 'o'}, {'input': 'i', 'answer': 'o'}),
    'alpaca without output': ({'instruction': 'i', 'input': 'x'}, {'input': 'i x'}),
    'prompt only': ({'prompt': 'q', 'category': 'c', 'label': 'safe'}, {'input': 'q'}),
    'prompt only as messages': ({'prompt': FULL[:3]}, {'input': ['q', 'a', 'r']}),
    'an empty answer is kept': ({'prompt': 'q', 'completion': ''}, {'input': 'q', 'answer': ''}),
    'a null answer is absent': ({'prompt': 'q', 'completion': None}, {'input': 'q'}),
    'numbers are taken over': (
        {'prompt': 'q', 'completion': 'a', 'weight': 2, 'score': 0.5, 'margin': None, 'id': 7},
        {**ONE, 'weight': 2, 'score': 0.5},
    ),
    'numbers of a pair are taken over': (
        {'prompt': 'q', 'chosen': 'good', 'rejected': 'bad', 'score_chosen': 8.5, 'score_rejected': 7, 'margin': -1},
        {**PAIR, 'score': 8.5, 'other_score': 7, 'margin': -1},
    ),
    "HALOs' pairwise feedback": (
        {'prompt': FULL[:3], 'output_A': 'bad', 'output_B': 'good', 'label': 0, 'reward_A': -1, 'reward_B': 0.5},
        {**LONG_PAIR, 'answer': 'bad', 'other_answer': 'good', 'better': False, 'score': -1, 'other_score': 0.5},
    ),
    "HALOs' binary feedback": (
        {'prompt': 'q', 'output': 'a', 'label': True, 'reward': 2.5},
        {**ONE, 'better': True, 'score': 2.5},
    ),
    'other_score': ({**PKU, 'score': 1, 'other_score': 2}, {**PKU_SAMPLE, 'score': 1, 'other_score': 2}),
}


@pytest.mark.parametrize('form', FORMS)
def test_jsonl_reads_the_forms_of_the_ecosystem(tmp_path, form):
    row, sample = FORMS[form]
    assert list(RawDataset.load('jsonl', path=str(write(tmp_path / 'a.jsonl', [row])))) == [sample]


@pytest.mark.parametrize('file', ['a.json', 'a.json.gz', 'a.jsonl', 'a.jsonl.gz'])
def test_jsonl_reads_lines_and_arrays_plain_and_gzipped(tmp_path, file):
    path = write(tmp_path / file, [{'prompt': 'q\u2028', 'completion': 'ä'}, {'prompt': 'r'}])
    raw = RawDataset.load('jsonl', path=str(path))
    assert list(raw) == [{'input': 'q\u2028', 'answer': 'ä'}, {'input': 'r'}]
    assert raw.fingerprint() == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def test_jsonl_reads_the_files_of_a_directory_in_the_order_of_their_names(tmp_path):
    for file, prompt in (('b.jsonl.gz', 'second'), ('a.json', 'first'), ('c.jsonl', 'third')):
        write(tmp_path / file, [{'prompt': prompt}])
    (tmp_path / 'README.md').write_text('not data', encoding='utf-8')
    raw = RawDataset.load('jsonl', path=str(tmp_path))
    assert [sample['input'] for sample in raw] == ['first', 'second', 'third']
    before = raw.fingerprint()
    write(tmp_path / 'd.jsonl', [{'prompt': 'fourth'}])
    assert RawDataset.load('jsonl', path=str(tmp_path)).fingerprint() != before


def test_jsonl_skips_blank_lines_and_a_byte_order_mark(tmp_path):
    (tmp_path / 'a.jsonl').write_bytes(b'\xef\xbb\xbf{"prompt": "q"}\r\n\r\n  \n{"prompt": "r"}\n\n')
    assert [sample['input'] for sample in RawDataset.load('jsonl', path=str(tmp_path))] == ['q', 'r']


MISTAKES = [
    ({'question': 'q', 'reply': 'r'}, 'no known form; keys found: question, reply; forms known: prompt+response_0'),
    ({}, 'no known form; keys found: none'),
    ({'chosen': 'good'}, 'no known form; keys found: chosen'),
    (['q'], 'a JSON object was expected, found list'),
    ({'prompt': 3}, 'prompt must be a text or a list of {role, content}, found int'),
    ({'prompt': []}, 'must start with a turn of the user'),
    (
        {'prompt': 'q', 'completion': {'text': 'a'}},
        'completion must be a text or a list of {role, content}, found dict',
    ),
    ({'messages': ['hi']}, 'messages: expected {role, content}, found hi'),
    ({'messages': [{'from': 'human', 'value': 'hi'}]}, 'messages: expected {role, content}, found'),
    ({'messages': says({'role': 'tool'}, 'x')}, "the role must be one of system, user, assistant, found 'tool'"),
    ({'messages': says({'role': ['user']}, 'x')}, "must be one of system, user, assistant, found ['user']"),
    ({'messages': says(U, ['q'])}, 'messages must be a text, found list'),
    ({'messages': says(A, 'a', U, 'q')}, 'must start with a turn of the user'),
    ({'chosen': FULL, 'rejected': says(U, 'other', A, 'bad')}, 'do not answer the same prompt'),
    (
        {'prompt': 'x', 'chosen': FULL, 'rejected': OTHER},
        'chosen starts with a turn of the user that is not the prompt',
    ),
    ({'chosen': 'good', 'rejected': 'bad'}, 'there is no prompt, and chosen and rejected share no beginning'),
    (
        {'prompt': 'q', 'chosen': 'good', 'rejected': 'bad', 'weak_chosen': 'fair'},
        'weak_chosen without the other of weak_chosen and weak_rejected',
    ),
    (
        {'chosen': 'a b', 'rejected': 'a c', 'weak_chosen': 'a d', 'weak_rejected': 'a e'},
        'weak_chosen and weak_rejected need a prompt',
    ),
    (
        {'chosen': FULL, 'rejected': OTHER, 'weak_chosen': says(U, 'x', A, 'y'), 'weak_rejected': OTHER},
        'chosen, rejected, weak_chosen, weak_rejected do not answer the same prompt',
    ),
    ({'prompt': 'q', 'response': 'a', 'is_safe': 'no'}, "is_safe must be true or false, 1 or 0, found 'no'"),
    ({'prompt': 'q', 'completion': 'a', 'label': 'yes'}, "label must be true or false, 1 or 0, found 'yes'"),
    ({**PKU, 'better_response_id': -1}, 'better_response_id must be true or false, 1 or 0, found -1'),
    ({**PKU, 'prompt': FULL}, 'prompt ends with a turn of the assistant'),
    ({**PKU, 'response_1': ['b']}, 'response_1 must be a text, found list'),
    ({'prompt': 'q', 'weight': '2'}, "weight must be a finite number, found '2'"),
    ({'prompt': 'q', 'score': float('nan')}, 'score must be a finite number, found nan'),
    ({'prompt': 'q', 'margin': 10**400}, 'margin must be a finite number, found 1000'),
    ({'prompt': 'q', 'weight': 1e39}, 'weight must be a finite number, found 1e+39'),  # not in float32
    ({'instruction': 'i', 'output': ['o']}, 'output must be a text, found list'),
]


@pytest.mark.parametrize(('row', 'message'), MISTAKES)
def test_jsonl_names_the_file_and_the_line_of_a_row_that_it_cannot_read(tmp_path, row, message):
    path = write(tmp_path / 'a.jsonl', [{'prompt': 'q'}, row])
    found = one_line('jsonl', path)
    assert f'{path}, line 2: ' in found
    assert message in found


@pytest.mark.parametrize(
    'row', [{'prompt': 'q', 'weight': 999 * 'x'}, {'prompt': 'q', 'completion': 'a', 'label': 999 * 'x'}]
)
def test_a_value_of_the_wrong_kind_is_not_told_at_length(tmp_path, row):
    found = one_line('jsonl', write(tmp_path / 'rows.jsonl', [row]))
    assert 40 * 'x' in found
    assert 99 * 'x' not in found


def test_jsonl_names_the_row_of_an_array(tmp_path):
    path = write(tmp_path / 'a.json', [{'prompt': 'q'}, {'x': 1}])
    assert f'{path}, row 2: no known form; keys found: x' in one_line('jsonl', path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'{"prompt": "q"}\n{"prompt"\n', 'line 2: not JSON: '),
        (b'{"prompt": "q"}\nhello\n', 'line 2: not JSON: '),
        (b'{\n  "prompt": "q"\n}\n', 'line 1: not JSON: '),
        (b'[{"prompt": "q"},\n{"prompt"},\n', 'line 2: not JSON: '),
        (b'{"prompt": "\xff"}\n', 'line 1: not JSON: '),
        (b'{"prompt": ' + b'[' * 100_000, 'line 1: not JSON: maximum recursion depth'),
        (b'\n\n', 'it holds no rows'),
        (b'[]', 'it holds no rows'),
    ],
)
def test_jsonl_names_the_file_and_the_line_that_is_no_json(tmp_path, content, message):
    path = tmp_path / 'a.jsonl'
    path.write_bytes(content)
    found = one_line('jsonl', path)
    assert str(path) in found
    assert message in found


@pytest.mark.parametrize('content', [b'no gzip', gzip.compress(b'{"prompt": "q"}\n' * 99, mtime=0)[:-12]])
def test_jsonl_names_a_file_that_is_no_gzip_or_is_cut_short(tmp_path, content):
    (tmp_path / 'a.jsonl.gz').write_bytes(content)
    assert 'a.jsonl.gz: cannot be read: ' in one_line('jsonl', tmp_path)


def test_jsonl_names_a_directory_without_such_files(tmp_path):
    assert f'{tmp_path}: the directory holds no file that ends in .jsonl or .json' in one_line('jsonl', tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason='the real corpus is not here')
@pytest.mark.parametrize(
    ('name', 'file', 'count'),
    [
        ('jsonl', 'preference/hh_helpful_test.jsonl.gz', 300),
        ('jsonl', 'preference/pku_safety_pairs_test.jsonl.gz', 337),
        ('jsonl', 'sft/alpaca_test.jsonl.gz', 500),
        ('jsonl', 'safety/pku_labelled_responses.jsonl.gz', 4756),
        ('alpaca', 'sft/alpaca_test.jsonl.gz', 500),
        ('PKU-SafeRLHF/test', 'preference/pku_safety_pairs_test.jsonl.gz', 337),
    ],
)
def test_the_real_corpus_has_as_many_rows_as_its_readme_says(name, file, count):
    raw = RawDataset.load(name, path=str(DATA / file))
    assert len(raw) == count
    assert all(sample['input'] and sample['answer'] for sample in raw)


@pytest.mark.skipif(not DATA.is_dir(), reason='the real corpus is not here')
def test_a_label_that_the_real_corpus_leaves_open_is_absent():
    raw = RawDataset.load('jsonl', path=str(DATA / 'safety/pku_labelled_responses.jsonl.gz'))
    assert sum('is_safe' not in sample for sample in raw) == 296  # tied votes


@pytest.mark.skipif(not DATA.is_dir(), reason='the real corpus is not here')
def test_a_class_and_jsonl_read_the_real_corpus_alike():
    for name, file in (('alpaca', 'sft/alpaca_test'), ('PKU-SafeRLHF/test', 'preference/pku_safety_pairs_test')):
        path = str(DATA / f'{file}.jsonl.gz')
        table, lines = RawDataset.load(name, path=path), RawDataset.load('jsonl', path=path)
        assert list(table) == list(lines)
        assert table.fingerprint() == lines.fingerprint()
