"""Numbers, times and names as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

WORDS = {  # what some keys are called, in the order in which a reader wants them
    'policy': 'policy', 'opponent': 'opponent', 'category': 'category', 'task': 'task', 'num_shots': 'shots',
    'num_prompts': 'prompts', 'num_samples': 'responses a prompt', 'num_questions': 'questions',
    'difference': 'difference', 'win_rate': 'win rate', 'length_controlled': 'win rate at equal length', 'ties': 'ties',
    'p_value': 'p', 'kl': 'KL', 'kl_per_token': 'KL a token', 'kl_monte_carlo': 'KL, Monte Carlo', 'reward': 'reward',
    'cost': 'cost', 'safe': 'safe', 'elo_difference': 'Elo difference', 'elo_reward': 'Elo by reward',
    'elo_safety': 'Elo by safety', 'normalised': '0 guessing, 100 best', 'policies': 'policies', 'pairs': 'pairs',
    'lambda': 'multiplier λ', 'kl_divergence': 'KL from the reference', 'kl_k3': 'KL, k3 estimate',
    'cost_unsafe': 'share unsafe', 'episode_cost': 'mean cost of the window', 'cut_off': 'share cut off',
    'mean_generated_length': 'mean length', 'lr': 'learning rate', 'grad_norm': 'gradient norm',
    'num_cut': 'questions cut', 'num_empty': 'empty answers',
}  # fmt: skip
ORDER = {key: place for place, key in enumerate([*WORDS, 'categories'])}
ENDS = ('value', 'low', 'high')
SHORT = 8  # characters of a hash


def words(name: str) -> str:
    """A key as a reader would say it."""
    return WORDS.get(name) or name.replace('_', ' ')


def number(value: float | None) -> str:
    """Three decimals where these say something, fewer of large numbers, more of small ones."""
    if value is None or not math.isfinite(value):
        return '–'
    if isinstance(value, int) or abs(value) >= 1000:
        form = ',.0f'
    elif abs(value) >= 100:
        form = '.1f'
    else:
        form = '.3f' if abs(value) >= 0.01 or value == 0 else '.2g'
    return minus(f'{value:{form}}')


def minus(text: str) -> str:
    """A number with the sign that is as wide as a plus."""
    return text.replace('-', '\N{MINUS SIGN}')


def is_estimate(value: Any) -> bool:
    """Whether this is a value with its interval, as `Estimate.told` writes it."""
    return isinstance(value, dict) and value.keys() >= {*ENDS}


def interval(told: dict[str, float | None]) -> tuple[str, str]:
    """An estimate and '[low, high]', as the terminal shows them; fewer decimals where the interval is wide."""
    value, low, high = told['value'], told['low'], told['high']
    if value is None or low is None or high is None:
        return number(value), ''
    wide = high - low >= 10
    first, *ends = (minus(f'{one:.3f}' if not wide else f'{one:,.0f}' if abs(one) >= 10 else f'{one:.3g}')
                    for one in (value, low, high))  # fmt: skip
    rest = ''.join(f', {words(name)} {number(size)}' for name, size in told.items() if name not in ENDS)
    return first, f'[{", ".join(ends)}]{rest}'


def in_order(keys: Iterable[str]) -> list[str]:
    """Keys as a reader wants them: those in `WORDS` first, the others as they are, categories last."""
    return sorted(keys, key=lambda key: ORDER.get(key, ORDER['categories'] - 0.5))


def duration(seconds: float | None) -> str:
    """'1 min 22 s'."""
    if seconds is None:
        return '–'
    if seconds < 60:
        return f'{seconds:.1f} s' if seconds < 10 else f'{seconds:.0f} s'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'


def short_hash(digest: str | None) -> str:
    """The beginning of a hash."""
    return digest[:SHORT] if digest else 'no hash'


def short_path(path: str) -> str:
    """The end of a path that is long."""
    parts = PurePath(path).parts
    return path if len(path) <= 32 or len(parts) < 3 else '…/' + '/'.join(parts[-2:])


def clipped(text: str, length: int) -> str:
    """Its beginning, if it is longer than `length`."""
    return text if len(text) <= length else text[: length - 1] + '…'


def moment(iso: str) -> str:
    """'2026-11-21 19:37 UTC', of a time as records have it."""
    return iso[:16].replace('T', ' ') + (' UTC' if iso.endswith('+00:00') else '')
