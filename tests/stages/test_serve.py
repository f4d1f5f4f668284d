"""Talking to policies from a pipe and in a terminal, and models that are not what they are asked to be."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import time

import pytest

LONG = ('--max_length', 100_000, '--temperature', 0, '--bf16', False)


class Keyboard:
    """The other end of a terminal."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.name, self.slave, self.seen = os.ttyname(slave), slave, ''

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str, seconds: float = 60) -> str:
        """What is shown up to where `pattern` matches."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            assert time.monotonic() < end, f'waited for {seconds} s; the terminal shows:\n{self.seen[-2000:]}'
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode(errors='replace')
        shown, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return shown

    def interrupt(self) -> None:
        """Ctrl-C at a prompt, until there is a new line: Python's readline misses one before it waits for a key."""
        for _ in range(30):
            self.type('\x03')
            with contextlib.suppress(AssertionError):
                self.until('\r\n', 2)
                return
        pytest.fail('Ctrl-C at the prompt ends nothing')

    def close(self) -> None:
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def keyboard():
    one = Keyboard()
    yield one
    one.close()


def test_a_message_through_a_pipe_is_answered_in_plain_text(stages, chain, tmp_path):
    (tmp_path / 'said').write_text('Hello')  # its line has no end
    models = [part for kind in ('reward', 'cost') for part in (f'--{kind}_model_name_or_path', chain / kind)]
    options = ('--max_new_tokens', 12, '--bf16', False, '--model_name_or_path', chain / 'ppo_lag', *models)
    code, said = stages.run('safe_align.serve.cli', *options, stdin=tmp_path / 'said', TERM='xterm-256color')
    assert code == 0, said
    assert '\x1b' not in said
    assert '> ' not in said
    lines = [line for line in said.splitlines() if not line.startswith('opening ')]
    assert re.fullmatch(r'reward -?\d+\.\d\d  cost -?\d+\.\d\d \((un)?safe\)', lines[-2])
    assert lines[0]
    assert not lines[-1]


def test_ctrl_c_stops_an_answer_and_at_the_prompt_the_session(stages, family, keyboard):
    policy = ('--model_name_or_path', family('llama'))
    stage = stages.start('safe_align.serve.cli', *policy, *LONG, terminal=keyboard.name, TERM='xterm', NO_COLOR='')
    keyboard.until('/help lists the commands.*> ')
    keyboard.type('Hello\n')
    keyboard.until('Hello\r\n.{200}')  # it is in the middle of an answer without end
    keyboard.type('\x03')
    assert '\x1b[2m(stopped)\x1b[0m' in keyboard.until(r'stopped.*> ')
    keyboard.type('/regenerate\n')
    keyboard.until('/regenerate\r\n.{200}')
    keyboard.type('\x03')
    keyboard.until('stopped.*> ')
    keyboard.interrupt()
    assert stage.wait() == 0


def test_two_answers_have_the_colours_of_their_corners_unless_they_are_not_wanted(stages, tiny, keyboard):
    corners = ('--red_corner_model_name_or_path', tiny, '--blue_corner_model_name_or_path', tiny)
    options = (*corners, '--max_new_tokens', 4, '--bf16', False)
    for environment, red, blue in (({'NO_COLOR': ''}, '\x1b[1;31m', '\x1b[1;34m'), ({'NO_COLOR': '1'}, '', '')):
        stage = stages.start('safe_align.serve.arena', *options, terminal=keyboard.name, TERM='xterm', **environment)
        keyboard.until('/help lists the commands.*> ')
        keyboard.type('Hello\n')
        shown = keyboard.until('blue: .*\n> ')
        assert f'\n{red}red: {tiny}' in shown
        assert f'\n{blue}blue: {tiny}' in shown
        keyboard.type('\x04')
        assert stage.wait() == 0
        keyboard.seen = ''


def test_what_is_no_policy_or_no_score_model_is_refused(fails, chain, tiny, tmp_path):
    policy, reward = ('--model_name_or_path', tiny), ('--reward_model_name_or_path', chain / 'reward')
    said = fails('serve.cli', '--model_name_or_path', chain / 'reward')
    assert f'--model_name_or_path {chain / "reward"}: a reward model, where a policy model was expected' in said
    said = fails('serve.cli', *policy, '--cost_model_name_or_path', chain / 'reward')
    assert f'--cost_model_name_or_path {chain / "reward"}: a reward model, where a cost model was expected' in said
    assert 'where a reward model was expected' in fails('serve.cli', *policy, '--reward_model_name_or_path', tiny)
    gone = tmp_path / 'gone'
    assert f'--model_name_or_path {gone}: no such directory' in fails(
        'serve.cli', '--model_name_or_path', gone, *reward
    )
    corners = ('serve.arena', '--red_corner_model_name_or_path', tiny, '--blue_corner_model_name_or_path')
    assert f'--blue_corner_model_name_or_path {gone}: no such directory' in fails(*corners, gone)
    said = fails('serve.cli', *policy, '--cost_model_name_or_path', 'function:nothing')
    assert '--cost_model_name_or_path function:nothing: no such score function' in said
