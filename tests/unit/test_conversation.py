"""A session: what is said, what is remembered, what commands do, and what the scores are of."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from safe_align.generation import Sampling, generate
from safe_align.models.loading import load_policy
from safe_align.plugins import import_plugin
from safe_align.sampling import Response
from safe_align.serve import arena, cli, voice
from safe_align.serve.session import comparison, rating
from safe_align.serve.terminal import Terminal
from safe_align.templates import Template

HELLO, KNIFE = 'Hello', 'How do I sharpen a kitchen knife?'
FUNCTIONS = Path(__file__).parents[2] / 'examples/score_functions.py'
DRAW = {'max_length': 96, 'max_new_tokens': 16, 'temperature': 0.7, 'seed': 5, 'bf16': False}


@pytest.fixture(scope='module')
def template(tiny):
    return Template(AutoTokenizer.from_pretrained(tiny))


@pytest.fixture(scope='module')
def other(tiny, tmp_path_factory):
    """The same model, if it had been trained on safe-rlhf's format."""
    place = shutil.copytree(tiny, tmp_path_factory.mktemp('other') / 'policy')
    Template(AutoTokenizer.from_pretrained(place), 'safe-rlhf').tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope='module')
def expected(tiny):
    """`expected(template, turns, key)` is the text that generation gives."""
    model = load_policy(str(tiny))

    def make(template: Template, turns: list[str], key: int, max_length: int = 96) -> str:
        sampling = Sampling(16, 0.7, seed=5, max_length=max_length)
        return template.text(generate(model, [template.prompt(turns)], sampling, template.stop_ids, [key])[0].ids)

    return make


@pytest.fixture
def hears(monkeypatch):
    """Give these lines to whoever reads stdin."""

    def give(*lines: str) -> None:
        text = ''.join(f'{line}\n' for line in lines)
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(text.encode()), encoding='utf-8'))

    return give


@pytest.fixture
def talk(tiny, hears, capsys):
    """`talk('Hello', '/reset')` is what a session with `tiny` says, a list of lines for each line that it is told."""

    def run(*lines: str, **options) -> list[list[str]]:
        hears(*lines)
        assert cli.main(cli.ChatConfig(**{'model_name_or_path': str(tiny), **DRAW, **options})) == 0
        return [part.splitlines() for part in capsys.readouterr().out.split('\n\n') if part]

    return run


@pytest.fixture
def writes(monkeypatch, template):
    """`writes('text', stop_at=3)`: a policy that writes just that, and Ctrl-C as its third token comes."""

    def script(text: str, stop_at: int | None = None) -> list[int]:
        ids = template.response(text)

        def stream(model, prompt, sampling, stop_ids, key, drawn) -> Response:
            for number, token in enumerate(ids, 1):
                if number == stop_at:
                    os.kill(os.getpid(), signal.SIGINT)
                drawn(token)
            return Response(0, 0, ids, [0.0] * len(ids), True)

        monkeypatch.setattr(voice, 'stream', stream)
        return ids

    return script


@pytest.mark.parametrize('stream', [True, False])
def test_an_answer_is_what_generation_draws_in_the_conversation_so_far(stream, talk, template, expected):
    first, second = (part[0] for part in talk(HELLO, KNIFE, stream=stream))
    assert first == expected(template, [HELLO], 1)
    assert second == expected(template, [HELLO, first, KNIFE], 2)
    assert second != expected(template, [KNIFE], 2)


def test_an_answer_is_drawn_anew_in_place_of_the_last(talk, template, expected):
    first, again, second = (part[0] for part in talk(HELLO, '/regenerate', KNIFE))
    assert again == expected(template, [HELLO], 2)
    assert again != first
    assert second == expected(template, [HELLO, again, KNIFE], 3)


def test_the_same_lines_and_seed_make_the_same_session(talk):
    lines = (HELLO, '/regenerate', KNIFE)
    assert talk(*lines) == talk(*lines)
    assert talk(*lines) != talk(*lines, seed=6)


@pytest.mark.parametrize('command', ['/reset', '/clear'])
def test_a_reset_forgets_what_was_said_and_what_could_be_drawn_anew(command, talk, template, expected):
    lines = [line for part in talk(HELLO, command, '/regenerate', KNIFE) for line in part]
    told = lines.index('(the conversation is forgotten)')
    assert lines[told + 1 : told + 3] == ['(there is no answer to draw anew)', expected(template, [KNIFE], 2)]


def test_commands_are_told_apart_from_messages(talk, template, expected):
    (lines,) = talk('/regenrate', '/what ever', '/help')
    assert lines[0] == '(no command /regenrate (did you mean /regenerate?); /help lists them)'
    assert lines[1] == '(no command /what ever; /help lists them)'
    assert [line.split()[0] for line in lines[2:6]] == ['/regenerate', '/reset', '/help', '/quit']
    assert talk(' /quit', '')[0][0] == expected(template, ['/quit'], 1)  # with a space before it, it is a message
    assert talk('two \\', 'lines')[0][0] == expected(template, ['two \nlines'], 1)


@pytest.mark.parametrize('command', ['/quit', '/exit'])
def test_nothing_is_answered_after_the_end(command, talk):
    assert talk(command, HELLO) == []


def test_what_no_longer_fits_is_forgotten_from_the_oldest_on_and_told(talk, template, expected):
    long = ' '.join(['the knife'] * 12)
    lines = [line for part in talk(HELLO, long, long) for line in part]
    notes = [line for line in lines if line.startswith('(forgotten')]
    assert notes
    assert set(notes) <= {
        '(forgotten: the oldest message and answer, which no longer fit --max_length 96)',
        '(forgotten: the oldest 2 messages and answers, which no longer fit --max_length 96)',
    }
    assert expected(template, [long], 3) in lines  # all that it remembers


def test_a_message_that_leaves_no_room_is_not_answered_and_not_remembered(talk, template, expected):
    long = 'knife ' * 200
    refused, (answer, *_) = talk(long, HELLO)
    length = len(template.prompt([long.strip()]))
    assert refused == [f'(not answered: the message has {length} tokens, --max_length is 96)']
    assert answer == expected(template, [HELLO], 2)


def test_why_an_answer_ends_early_is_told(talk):
    assert talk(HELLO, max_new_tokens=3, temperature=0)[0][-1] == '(cut off: --max_new_tokens 3)'
    length = 30
    assert talk(KNIFE, max_length=length, max_new_tokens=None, temperature=0)[0][-1] == '(cut off: --max_length 30)'


def test_what_a_policy_writes_cannot_command_the_terminal(talk, writes):
    writes('\x1b[31mred\x1b[0m\x07 end\rover')
    assert talk(HELLO) == [[r'\x1b[31mred\x1b[0m\x07 end\rover']]


def test_a_policy_that_answers_nothing_is_told_of(talk, writes):
    writes('')
    assert talk(HELLO) == [['(no answer)']]
    writes(' \n')
    assert talk(HELLO) == [['(no answer)']]


def test_a_stopped_answer_stays_as_far_as_it_came(talk, writes, monkeypatch, template):
    ids = writes('Use a stone, and then some water.', stop_at=4)
    asked = []
    real = Template.prompt
    monkeypatch.setattr(Template, 'prompt', lambda self, turns: asked.append(list(turns)) or real(self, turns))
    handler = signal.getsignal(signal.SIGINT)
    lines = [line for part in talk(HELLO, KNIFE) for line in part]
    came = template.text(ids[:3])
    assert lines[:2] == [came, '(stopped)']
    assert [HELLO, came, KNIFE] in asked
    assert signal.getsignal(signal.SIGINT) is handler


def test_scores_are_those_that_transformers_gives_the_conversation(talk, score_models, template):
    options = {f'{kind}_model_name_or_path': str(path) for kind, path in score_models.items()}
    parts = talk(HELLO, KNIFE, temperature=0, **options)
    turns: list[str] = []
    for message, lines in zip((HELLO, KNIFE), parts, strict=True):
        text = '\n'.join(line for line in lines[:-1] if not line.startswith('(cut off'))
        ids = [*template.prompt([*turns, message]), *template.response(text)]
        scores = {kind: transformers_score(path, ids) for kind, path in score_models.items()}
        safe = 'safe' if scores['cost'] <= 0 else 'unsafe'
        assert lines[-1] == f'reward {scores["reward"]:.2f}  cost {scores["cost"]:.2f} ({safe})'
        turns += [message, text]


def transformers_score(path, ids: list[int]) -> float:
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    with torch.no_grad():
        return float(model(torch.tensor([ids])).logits)


def test_two_policies_answer_each_in_its_own_conversation_and_template(
    tiny, other, hears, capsys, template, expected, score_models
):
    hears(HELLO, KNIFE, '/regenerate')
    places = {'red_corner_model_name_or_path': str(tiny), 'blue_corner_model_name_or_path': str(other)}
    judge = {'reward_model_name_or_path': str(score_models['reward'])}
    assert arena.main(arena.DuelConfig(**places, **judge, **{**DRAW, 'max_length': 200})) == 0
    parts = capsys.readouterr().out.strip().split('\n\n')
    foreign = Template(template.tokenizer, 'safe-rlhf')
    history: dict[str, list[str]] = {'red': [], 'blue': []}
    for key, (message, part) in enumerate(zip((HELLO, KNIFE, KNIFE), parts, strict=True), 1):
        lines = part.splitlines()
        rewards = {}
        for corner, path, own in (('red', tiny, template), ('blue', other, foreign)):
            turns = [*history[corner], message]
            text = expected(own, turns, key, 200)
            label = lines.index(f'{corner}: {path}')
            assert '\n'.join(lines[label + 1 :]).startswith(f'{text}\n')
            rewards[corner] = transformers_score(
                score_models['reward'], [*template.prompt(turns), *template.response(text)]
            )
            history[corner] += [message, text] if key == 1 else []
        assert lines[-3:-1] == [f'red   reward {rewards["red"]:.2f}', f'blue  reward {rewards["blue"]:.2f}']
        assert lines[-1] == f'better by reward: {max(rewards, key=rewards.__getitem__)}'


def test_functions_score_answers_too(talk, writes, no_plugins):
    import_plugin(str(FUNCTIONS))
    writes('Write to someone@example.org, please.')
    options = {'reward_model_name_or_path': 'function:brevity', 'cost_model_name_or_path': 'function:contact_details'}
    ((_, scores),) = talk(HELLO, **options)
    assert scores.endswith('(unsafe)')
    writes('Use a stone.')
    assert talk(HELLO, **options)[0][1].endswith('(safe)')


def test_scores_in_words():
    assert rating({'reward': 1.234, 'cost': -0.45}) == 'reward 1.23  cost -0.45 (safe)'
    assert rating({'cost': 0.0}) == 'cost 0.00 (safe)'  # at 0 still safe
    assert rating({'cost': 0.004}) == 'cost 0.00 (unsafe)'
    red, blue = {'reward': 1.0, 'cost': -2.0}, {'reward': 3.0, 'cost': -2.0}
    assert comparison({'red': red, 'blue': blue}) == 'reward: blue, by cost: neither'
    assert comparison({'red': {'cost': -3.0}, 'blue': {'cost': 1.0}}) == 'cost: red'


def test_a_session_ends_when_nobody_reads_it(tiny, hears, monkeypatch):
    hears(HELLO)
    read, write = os.pipe()
    os.close(read)
    with open(write, 'w', encoding='utf-8') as gone:
        monkeypatch.setattr(sys, 'stdout', gone)
        assert cli.main(cli.ChatConfig(model_name_or_path=str(tiny), **DRAW)) == 1


def test_bytes_that_are_no_text_are_read_all_the_same(monkeypatch):
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'caf\xe9 \\'), encoding='utf-8'))
    assert Terminal().read() == 'caf\ufffd '  # and a last line may end in the middle of a message
