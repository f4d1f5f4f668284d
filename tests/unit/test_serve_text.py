"""What is shown of an answer as it comes is what it is in the end, and nothing that a terminal obeys."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from safe_align.serve.text import Pieces, printable
from safe_align.templates import Template

TEXT = 'Grüße, 世界! 👩‍🍳 says:\n\n- a stone\n- water \n end'


@pytest.fixture(scope='module')
def templates(tiny):
    """With bytes for characters: of pieces of text, as GPT-2 has them, and where no other token is, as Llama has."""
    marked = Tokenizer(models.BPE(unk_token='<unk>', byte_fallback=True))
    marked.pre_tokenizer = pre_tokenizers.Metaspace()
    marked.decoder = decoders.Sequence(
        [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    special = ['<unk>', '</s>', *(f'<0x{byte:02X}>' for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    marked.train_from_iterator(['the end of a stone says the water to a stone'] * 9, trainer)
    words = marked.get_vocab()
    backend = Tokenizer(models.BPE(vocab=words, merges=[], unk_token='<unk>', byte_fallback=True))
    backend.pre_tokenizer, backend.decoder = marked.pre_tokenizer, marked.decoder
    llama = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token='</s>', unk_token='<unk>')
    return {'bytes': Template(AutoTokenizer.from_pretrained(tiny)), 'fallback': Template(llama)}


def pieces_of(template: Template, ids: list[int]) -> list[str]:
    pieces = Pieces(template)
    return [*(pieces.add(token) for token in ids), pieces.end()]


@pytest.mark.parametrize('kind', ['bytes', 'fallback'])
def test_the_tokenizers_make_text_of_bytes(kind, templates):
    template = templates[kind]
    ids = template.response(TEXT)
    assert template.text(ids) == TEXT
    assert any(template.text(ids[:n]).endswith('\ufffd') for n in range(len(ids)))  # a token ends within a character


@pytest.mark.parametrize('kind', ['bytes', 'fallback'])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pieces_join_to_the_text_of_all_tokens_whatever_they_are(kind, templates, data):
    template = templates[kind]
    some = template.response(TEXT)  # bytes of it, cut anywhere, between any other tokens
    token = st.one_of(st.sampled_from(some), st.integers(0, len(template.tokenizer) - 1))
    ids = data.draw(st.lists(token, max_size=12)) + data.draw(st.sampled_from([some[:n] for n in range(len(some))]))
    assert ''.join(pieces_of(template, ids)) == template.text(ids)


@pytest.mark.parametrize('kind', ['bytes', 'fallback'])
def test_a_piece_comes_as_soon_as_it_is_final(kind, templates):
    template = templates[kind]
    ids = template.response(TEXT)
    shown, pieces = '', Pieces(template)
    for n, token in enumerate(ids, 1):
        shown += pieces.add(token)
        assert '\ufffd' not in shown
        name = template.tokenizer.convert_ids_to_tokens(token)
        if not name.startswith('<0x') and not (text := template.text(ids[:n])).endswith('\ufffd'):
            assert shown == text
    assert shown == TEXT


def test_a_character_that_stays_broken_is_shown_once_it_is_known_to(templates):
    template = templates['bytes']
    first = template.response('世')[0]  # E4, or E4 B8
    a, b = (template.response(letter)[0] for letter in 'ab')
    assert pieces_of(template, [a, first, b, first]) == ['a', '', '\ufffdb', '', '\ufffd']


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('\x1b[31mred\x1b]0;title\x07', r'\x1b[31mred\x1b]0;title\x07'),
        ('a\rb\x00\x7f\x9bm', r'a\rb\x00\x7f\x9bm'),  # 9b begins an escape sequence too
        ('abc\u202edef\u2028\ud800', r'abc\u202edef\u2028\ud800'),
        ('one\ttwo\nthree', 'one\ttwo\nthree'),
        ('Grüße, 世界\u3000\xa0👩\u200d🍳 \ufffd', 'Grüße, 世界\u3000\xa0👩\u200d🍳 \ufffd'),
    ],
)
def test_what_a_terminal_obeys_is_shown_as_its_escape(text, shown):
    assert printable(text) == shown
    assert ''.join(map(printable, text)) == shown  # piece by piece too


@pytest.mark.parametrize('kind', ['bytes', 'fallback'])
def test_space_before_a_broken_character_that_turns_out_to_be_a_space_is_not_shown(kind, templates):
    template = templates[kind]
    assert ''.join(pieces_of(template, template.response('a \u3000'))) == template.text(template.response('a')) == 'a'
