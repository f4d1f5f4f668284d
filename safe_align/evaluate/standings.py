"""What is said of any number of policies that answered the same prompts: scores, pairs, ratings, by category too."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from safe_align.bounds import Array
from safe_align.evaluate.length_control import length_controlled
from safe_align.evaluate.ratings import rate, round_robin
from safe_align.evaluate.statistics import mean, score_rate, sign_test, text_of
from safe_align.evaluate.tables import aligned

Row = dict[str, Any]


def summarise(rows: Sequence[Row], labels: Sequence[str]) -> dict[str, Any]:
    """Of all prompts, and of each category where rows have one.

    Rows of a prompt follow each other; they are its samples. A cost at or below 0 is safe. The higher reward wins, and
    by safety the lower cost; a tie is half a win. The prompt is the unit of every interval.
    """
    num_samples = 1 + max(row['sample'] for row in rows)
    values = {
        kind: np.array([[row[f'{label}_{kind}'] for label in labels] for row in rows], float)
        .reshape(-1, num_samples, len(labels))
        for kind in ('reward', 'cost')
    }  # fmt: skip
    lengths = np.array([[len(row[f'{label}_answer']) for label in labels] for row in rows], float)
    values['length'] = lengths.reshape(-1, num_samples, len(labels))
    summary = {'num_samples': num_samples, **_of(values, labels)}
    kinds = [row.get('category') for row in rows[::num_samples]]
    summary['categories'] = [
        {'category': kind, **_of({name: one[[k == kind for k in kinds]] for name, one in values.items()}, labels)}
        for kind in sorted({kind for kind in kinds if kind is not None})
    ]
    return summary


def _of(values: dict[str, Array], labels: Sequence[str]) -> dict[str, Any]:
    """Of rewards, costs and lengths: (P, S, K) each."""
    tables = {'reward': values['reward'], 'safety': -values['cost']}
    ratings = {kind: rate(round_robin(table)) for kind, table in tables.items()}
    policies = [
        {
            'policy': label,
            'reward': mean(values['reward'][..., n]).told(), 'cost': mean(values['cost'][..., n]).told(),
            'safe': score_rate(values['cost'][..., n] <= 0).told(), 'characters': mean(values['length'][..., n]).told(),
            **{f'elo_{kind}': found.elo[n].told() for kind, found in ratings.items()},
        }
        for n, label in enumerate(labels)
    ]  # fmt: skip
    pairs = []
    for a, b in itertools.combinations(range(len(labels)), 2):
        pair: dict[str, Any] = {'policy': labels[a], 'opponent': labels[b]}
        for kind, table in tables.items():
            pair[kind] = _pair(table[..., a], table[..., b], values['length'][..., a] - values['length'][..., b])
            pair[kind]['elo_difference'] = ratings[kind].differences[a][b].told()
        pairs.append(pair)
    separated = {f'separated_{kind}': found.separated for kind, found in ratings.items()}
    return {'num_prompts': len(values['cost']), 'policies': policies, 'pairs': pairs, **separated}


def _pair(first: Array, second: Array, longer: Array) -> dict[str, Any]:
    """Games of two policies, (P, S) each: the first wins where it is higher."""
    outcomes = (np.sign(first - second) + 1) / 2
    score = outcomes.mean(1)
    return {
        'difference': mean(first - second).told(),
        'win_rate': score_rate(outcomes).told(),
        'length_controlled': length_controlled(outcomes, longer).win_rate.told(),
        'ties': int((outcomes == 0.5).sum()),
        'p_value': sign_test(score, np.full_like(score, 0.5)),
    }


def render(summary: dict[str, Any]) -> str:
    """As text for a terminal."""
    sizes = f'{summary["num_prompts"]} prompts, {summary["num_samples"]} responses each'
    lines = ['', f'{sizes}; mean [95% interval]', '', *_policies(summary)]
    for kind, head in (('reward', 'by reward'), ('safety', 'by safety')):
        if summary[f'separated_{kind}']:
            lines += ['', f'{head}, some won or lost all games: each pair has one more, drawn, in its Elo']
    heads = ['first against second', 'wins by reward', 'at equal length', 'wins by safety', 'Elo by reward']
    pairs = [
        [f'{pair["policy"]} : {pair["opponent"]}', *map(text_of, (
            pair['reward']['win_rate'], pair['reward']['length_controlled'], pair['safety']['win_rate'],
        )), text_of(pair['reward']['elo_difference'], 0)]
        for pair in summary['pairs']
    ]  # fmt: skip
    lines += ['', *aligned([heads, *pairs])]
    for group in summary['categories']:
        lines += ['', f'{group["category"]}, {group["num_prompts"]} prompts', *_policies(group)]
    return '\n'.join([*lines, ''])


def _policies(group: dict[str, Any]) -> list[str]:
    heads = ['policy', 'reward', 'cost', 'safe', 'Elo by reward', 'Elo by safety']
    rows = [
        [one['policy'], *(text_of(one[name]) for name in ('reward', 'cost', 'safe')),
         *(text_of(one[f'elo_{kind}'], 0) for kind in ('reward', 'safety'))]
        for one in group['policies']
    ]  # fmt: skip
    return aligned([heads, *rows])
