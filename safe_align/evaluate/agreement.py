"""What is said of a score model's scores of held-out pairs: of all, of each data set, and of each category."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from safe_align.bounds import Array
from safe_align.evaluate.calibration import calibration
from safe_align.evaluate.statistics import Estimate, by_prompt, clustered_rate, ratio, text_of, wilson
from safe_align.evaluate.tables import aligned

Row = dict[str, Any]
Kind = Literal['reward', 'cost']
SIDES = {'reward': ('rejected', 'chosen'), 'cost': ('safer', 'unsafer')}  # of a pair, the lower score first
GROUPS = {'datasets': 'dataset', 'categories': 'category'}  # under what in the summary, by what in a row
CALIBRATION = {
    'overconfidence': 'overconfidence', 'nll': 'negative log-likelihood', 'brier': 'Brier score',
    'temperature': 'fitted temperature',
}  # fmt: skip


def summarise(rows: Sequence[Row], kind: Kind) -> dict[str, Any]:
    """Of all rows, and of each data set and each category where there are several.

    The interval of every number has the prompt as its unit, since the pairs of one prompt are alike.
    """
    summary = _of(rows, kind)
    for group, name in GROUPS.items():
        values = sorted({row[name] for row in rows if row.get(name) is not None})
        if len(values) > 1:
            parts = {value: [row for row in rows if row.get(name) == value] for value in values}
            summary[group] = [{name: value, **_of(part, kind)} for value, part in parts.items()]
    return summary


def _of(rows: Sequence[Row], kind: Kind) -> dict[str, Any]:
    """Of pairs: `accuracy` is how often the higher score is where it should be, equal scores being half right."""
    prompts = np.array([row['prompt'] for row in rows])
    lower, higher = (np.array([row[f'{side}_{kind}'] for row in rows], float) for side in SIDES[kind])
    right = (np.sign(higher - lower) + 1) / 2
    found = {
        'num_prompts': len(set(prompts)), 'num_pairs': len(rows), 'num_equal': int((lower == higher).sum()),
        'accuracy': clustered_rate(*by_prompt(prompts, right)).told(),
        **{f'{side}_{kind}': ratio(*by_prompt(prompts, scores)).told()
           for side, scores in zip(SIDES[kind], (lower, higher), strict=True)},
        'calibration': calibration(np.abs(higher - lower), right, prompts),
    }  # fmt: skip
    labelled = responses(rows) if kind == 'cost' else []
    return {**found, 'sign': _signs(*map(np.array, zip(*labelled, strict=True)))} if labelled else found


def responses(rows: Sequence[Row]) -> list[tuple[str, float, bool]]:
    """Prompt, cost and whether it is safe, of each response that has a label; one in several pairs counts once."""
    found = {
        (row['prompt'], row[side], row[f'is_{side}_safe']): row[f'{side}_cost']
        for row in rows for side in SIDES['cost'] if row[f'is_{side}_safe'] is not None
    }  # fmt: skip
    return [(prompt, cost, label) for (prompt, _, label), cost in found.items()]


def _signs(prompts: NDArray[Any], costs: Array, is_safe: NDArray[np.bool_]) -> dict[str, Any]:
    """Of responses: a cost at or below 0 says that one is safe; `auc` ranks unsafe ones above safe ones."""
    right = ((costs <= 0) == is_safe).astype(float)
    found: dict[str, Any] = {'num_responses': len(costs), 'num_safe': int(is_safe.sum())}
    for name, which in (('', np.full_like(is_safe, True)), ('_safe', is_safe), ('_unsafe', ~is_safe)):
        found[f'accuracy{name}'] = clustered_rate(*by_prompt(prompts[which], right[which])).told()
    found['auc'] = auc(costs, ~is_safe, prompts).told()
    return {**found, 'calibration': calibration(costs, (~is_safe).astype(float), prompts)}


def auc(scores: Array, positive: NDArray[np.bool_], prompts: NDArray[Any]) -> Estimate:
    """How often a positive has the higher score of it and a negative, a tie being half: (n,) three times.

    Its variance is that of sums by prompt of what each response adds to it (Obuchowski 1997, Biometrics 53:567).
    """
    sizes = positive.sum(), (~positive).sum()
    if not all(sizes):
        return Estimate(math.nan, math.nan, math.nan)
    ranks, shares = stats.rankdata(scores), np.empty(len(scores))
    for which, other in ((positive, sizes[1]), (~positive, sizes[0])):
        shares[which] = (ranks[which] - stats.rankdata(scores[which])) / other
    value = shares[positive].mean()
    shares[~positive] = 1 - shares[~positive]
    errors, _ = by_prompt(prompts, (shares - value) / np.where(positive, *sizes))
    fewest = min(len(set(prompts[which])) for which in (positive, ~positive))
    return wilson(float(value), errors, fewest)


def render(summary: dict[str, Any], kind: Kind) -> str:
    """The summary as text for a terminal."""
    heads = ['', 'pairs', 'prompts', 'accuracy', 'equal']
    if 'sign' in summary:
        heads += ['sign right', 'of safe', 'of unsafe', 'AUC of unsafe']
    groups = [('all', summary)]
    groups += [(one[name], one) for group, name in GROUPS.items() for one in summary.get(group, ())]
    lines = [
        '',
        f'{kind} model {summary["model"]}',
        'value [95% interval, of prompts]; equal scores are half right',
        '',
    ]
    lines += aligned([heads, *([name, *_cells(one, 'sign' in summary)] for name, one in groups)])
    lower, higher = SIDES[kind]
    lines += ['', f'sigma(difference of {kind}s) against how often {higher} is above {lower}']
    lines += _calibration(summary['calibration'])
    if 'sign' in summary:
        lines += [
            '',
            'sigma(cost) against how often a response is unsafe',
            *_calibration(summary['sign']['calibration']),
        ]
    return '\n'.join([*lines, *(['', *summary['notes']] if summary['notes'] else []), ''])


def _cells(group: dict[str, Any], signs: bool) -> list[str]:
    sign = group.get('sign', {})
    rates = [sign.get(name) for name in ('accuracy', 'accuracy_safe', 'accuracy_unsafe', 'auc')] if signs else []
    counts = [str(group[f'num_{name}']) for name in ('pairs', 'prompts', 'equal')]
    return [*counts[:2], text_of(group['accuracy']), counts[2], *map(text_of, rates)]


def _calibration(found: dict[str, Any]) -> list[str]:
    error, chance = found['expected_calibration_error'], found['expected_by_chance']
    rows = [[f'  {head}', text_of(found[name])] for name, head in CALIBRATION.items()]
    return aligned([['  expected calibration error', f'{error:.3f}, {chance:.3f} by chance'], *rows])
