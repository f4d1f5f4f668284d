"""Pairs of answers for a judge, read from what stages have sampled."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safe_align.config import UserError
from safe_align.datasets.rows import prompt_hash
from safe_align.evaluate.samples import check_same_prompts
from safe_align.evaluate.strata import categories_of
from safe_align.online.records import Prompt, read_responses

if TYPE_CHECKING:
    from safe_align.evaluate.gpt4 import Gpt4Config

TABLE, ENDING = 'table.csv', '_answer'
MOST_CHARACTERS = 1 << 30  # of a field of a table
Say = Callable[[str], object]


class Game(NamedTuple):
    """Two answers to a prompt.

    Args:
        turns: user, assistant, ..., user.
        sample: number of the pair among those of its prompt.
        category: of the prompt, if it has one.
        red: the answer of the policy in the red corner.
        blue: that of the other.
    """

    turns: list[str]
    sample: int
    category: str | None
    red: str
    blue: str

    @property
    def key(self) -> int:
        """The prompt's hash."""
        return prompt_hash(self.turns)


def prompts_of(config: Gpt4Config) -> list[str]:
    """The data sets that were asked for, or safe-rlhf's problems."""
    file = resources.files('safe_align.evaluate') / 'problems' / 'problem83.jsonl'
    return config.datasets or [f'jsonl:1:{file}']


def read_games(config: Gpt4Config, say: Say) -> tuple[list[Game], list[str]]:
    """The pairs that --responses names, and what red and blue are called.

    Raises:
        UserError: a file cannot be read, or is something else, or the two sides answer different prompts.
    """
    kinds, places = categories_of(prompts_of(config)), config.responses
    if len(places) == 1:
        games, names = _table(places[0], kinds)
    else:
        games, names = _files(places, kinds, say), places
    if not games:
        raise UserError(f'--responses {" ".join(places)}: there are no answers')
    return games, names


def _files(places: Sequence[str], kinds: Mapping[int, str], say: Say) -> list[Game]:
    where = f'--responses {" ".join(places)}'
    red, blue = ({prompt.name: prompt for prompt in read_responses([place], say)} for place in places)
    check_same_prompts(where, {'red': red.values(), 'blue': blue.values()})
    games = []
    for name, prompt in red.items():
        answers, others = _by_sample(prompt), _by_sample(blue[name])
        if answers.keys() != others.keys():
            raise UserError(
                f'{where}: prompt {name} has {len(answers)} responses in red and {len(others)} in blue, or of other '
                'numbers; as many were expected'
            )
        kind = kinds.get(prompt_hash(prompt.turns))
        games += [Game(prompt.turns, n, kind, text, others[n]) for n, text in answers.items()]
    return games


def _by_sample(prompt: Prompt) -> dict[int, str]:
    return {row['sample_id']: row['response'] for row in prompt.rows}


def _table(place: str, kinds: Mapping[int, str]) -> tuple[list[Game], list[str]]:
    """Of an arena of two policies; it writes the turns of a prompt one after the other, so it is one turn here."""
    path = Path(place).expanduser()
    path = path / TABLE if path.is_dir() else path
    csv.field_size_limit(MOST_CHARACTERS)
    try:
        with path.open(newline='', encoding='utf-8') as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        told = error.strerror if isinstance(error, OSError) else 'is no table'
        raise UserError(
            f"--responses {path}: {told}; an arena's table.csv, or responses.jsonl of red and of blue, were expected"
        ) from error
    sides = [name for name in columns if name.endswith(ENDING)]
    if len(sides) != 2 or not {'prompt', 'sample'} <= {*columns}:
        raise UserError(f'--responses {path}: columns prompt, sample and two that end in {ENDING} were expected')
    games = []
    for number, row in enumerate(rows, 2):
        sample, texts = row['sample'], [row['prompt'], *(row[side] for side in sides)]
        if None in texts or not (sample or '').isdecimal():
            raise UserError(f'--responses {path}, row {number}: is cut off')
        turns = [row['prompt']]
        games.append(Game(turns, int(sample), row.get('category') or kinds.get(prompt_hash(turns)), *texts[1:]))
    return games, [f'{side.removesuffix(ENDING)} of {place}' for side in sides]
