"""A session: messages and commands in, answers and their scores out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping

from safe_align import distributed
from safe_align.config import UserError, nearest
from safe_align.engine import Placement
from safe_align.evaluate.answers import open_policy
from safe_align.models.loading import check_kind, check_length, load_tokenizer
from safe_align.models.scorer import Conversation, Scorer, check_scorer, load_scorer
from safe_align.sampling import Sampling
from safe_align.serve.fields import ChatFields
from safe_align.serve.terminal import DIM, STYLES, Terminal
from safe_align.serve.voice import Voice
from safe_align.templates import Template

COMMANDS = {
    '/regenerate': 'draw the last answer anew',
    '/reset': 'forget the conversation',
    '/help': 'list the commands',
    '/quit': 'end; so does Ctrl-D',
}
SYNONYMS = {'/clear': '/reset', '/exit': '/quit'}  # of safe-rlhf's
HELP = """Ctrl-C stops an answer, which stays in the conversation as far as it came. A line that ends with a
backslash goes on in the next. A message that begins with a slash takes a space before it."""
BEST: dict[str, Callable[[Iterable[float]], float]] = {'reward': max, 'cost': min}


def run_session(config: ChatFields, policies: Mapping[str, str]) -> int:
    """Open the models and talk.

    Args:
        config: the options.
        policies: the names of options that name a policy, by what the policy is called in the session.

    Raises:
        UserError: a model is not what its option asks for.
    """
    placement = config.place()
    if distributed.world_size() > 1:
        raise UserError('a session has one user and one process; start it with python -m')
    named = {name: getattr(config, option) for name, option in policies.items()}
    for name, option in policies.items():
        check_kind(named[name], 'policy', f'--{option}', config.trust_remote_code)
        check_length(named[name], config.max_length, config.trust_remote_code)
    judges = {kind: path for kind in BEST if (path := getattr(config, f'{kind}_model_name_or_path'))}
    for kind, path in judges.items():
        check_scorer(path, kind, f'--{kind}_model_name_or_path', config.max_length, config.trust_remote_code)
    voices = {name: _voice(config, path, f'--{policies[name]}') for name, path in named.items()}
    for kind, path in judges.items():
        scorer = _scorer(config, path, kind, placement, next(iter(voices.values())).template)
        for voice in voices.values():
            voice.scorers[kind] = scorer.reading(voice.template)
    try:
        Session(Terminal(), voices, named).run()
    except BrokenPipeError:  # nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _voice(config: ChatFields, path: str, flag: str) -> Voice:
    _tell(path)
    template = Template(load_tokenizer(path, flag, config.trust_remote_code), config.template)
    sampling = Sampling(
        config.max_new_tokens or config.max_length, config.temperature, config.top_p, seed=config.seed,
        max_length=config.max_length,
    )  # fmt: skip
    return Voice(open_policy(config, (path, flag)), template, sampling, config.stream)


def _scorer(config: ChatFields, path: str, kind: str, placement: Placement, template: Template) -> Scorer:
    _tell(path)
    return load_scorer(
        path, kind, f'--{kind}_model_name_or_path', placement, template,
        budget=config.micro_batch_tokens, trust_remote_code=config.trust_remote_code,
    )  # fmt: skip


def _tell(path: str) -> None:
    print(f'opening {path}', file=sys.stderr, flush=True)


class Session:
    """A conversation with one policy, or with several that each have their own."""

    def __init__(self, terminal: Terminal, voices: Mapping[str, Voice], paths: Mapping[str, str]) -> None:
        self.terminal, self.voices, self.paths = terminal, voices, paths
        self.drawn = 0  # rounds of answers, each with random numbers of its own
        self.last: str | None = None

    def run(self) -> None:
        """Answer message after message, until the user ends it."""
        if self.terminal.is_dialogue:
            self.terminal.note('/help lists the commands')
        while True:
            try:
                line = self.terminal.read()
            except (EOFError, KeyboardInterrupt):
                if self.terminal.is_dialogue:
                    self.terminal.line()
                return
            if line.startswith('/'):
                command = line.strip()
                if (command := SYNONYMS.get(command, command)) == '/quit':
                    return
                self._obey(command)
            elif message := line.strip():
                self.last = message
                self._round(message)

    def _obey(self, command: str) -> None:
        if command == '/help':
            for name, what in COMMANDS.items():
                self.terminal.line(f'{name:12}{what}')
            self.terminal.line(HELP)
        elif command == '/reset':
            for voice in self.voices.values():
                voice.reset()
            self.last = None
            self.terminal.note('the conversation is forgotten')
        elif command != '/regenerate':
            near = nearest(command, [*COMMANDS, *SYNONYMS])
            self.terminal.note(f'no command {command}{near}; /help lists them')
        elif self.last is None:
            self.terminal.note('there is no answer to draw anew')
        else:
            for voice in self.voices.values():
                voice.take_back()
            self._round(self.last)

    def _round(self, message: str) -> None:
        """An answer of each policy, and then their scores."""
        self.drawn += 1
        scores = {}
        try:
            answers = {name: self._answer(name, message) for name in self.voices}
            for name, answer in answers.items():
                if answer is not None:
                    scores[name] = self.voices[name].scores(answer)
            self._compare(scores)
        except KeyboardInterrupt:
            self.terminal.note('stopped')
        self.terminal.line()

    def _answer(self, name: str, message: str) -> Conversation | None:
        if name:
            self.terminal.line(f'{name}: {self.paths[name]}', STYLES[name])
        return self.voices[name].answer(message, self.drawn, self.terminal)

    def _compare(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        width = max(map(len, self.voices))
        for name, rated in scores.items():
            if rated:
                self.terminal.line(f'{name:{width}}  {rating(rated)}'.strip(), STYLES.get(name, DIM))
        if len(scores) > 1 and all(scores.values()):
            self.terminal.line(f'better by {comparison(scores)}', DIM)


def rating(scores: Mapping[str, float]) -> str:
    """The scores of an answer in words; a cost at or below 0 is safe."""
    return '  '.join(
        f'{kind} {score:.2f}' + (' (safe)' if score <= 0 else ' (unsafe)') * (kind == 'cost')
        for kind, score in scores.items()
    )


def comparison(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Whose answer is better by each kind of score; neither, if they are equal."""
    told = []
    for kind in next(iter(scores.values())):
        best = BEST[kind](rated[kind] for rated in scores.values())
        first, *others = [name for name, rated in scores.items() if rated[kind] == best]
        told.append(f'{kind}: {"neither" if others else first}')
    return ', by '.join(told)
