"""Win rates and ratings of another leaderboard, from its own annotations, by our reader.

python benchmarks/leaderboard.py --leaderboard FILE.csv ... [--annotations FILE.json ...]

A leaderboard is AlpacaEval's table: a line a model, `win_rate` in percent. With its annotations, each model's win rate
must be the published one to 3 digits. Without, the rows are written anew from the wins, losses and draws that the table
publishes, which is all that they say but for order; where the judge gave chances of a win, the win rate is then that of
the likelier sides, `discrete_win_rate`. A column `bradley_terry`, of strengths that sum to 1, is compared too.

Where `evalica` is installed, its Bradley-Terry model of the same games must be ours to 1e-6 in logits. Exit 1 if
anything differs; what does is printed below. One of the 395 lines of AlpacaEval's tables does, whose published win rate
is not that of its own counts.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from safe_align.evaluate import ratings
from safe_align.evaluate.annotations import Annotations, annotations_of, read_annotations

POINTS, STRENGTH, LOGITS = 5e-4, 5e-4, 1e-6  # what may lie between: percent, shares, and logits
BASELINE = 'baseline'


def published(path: Path) -> dict[str, dict[str, str]]:
    """The table's lines by model."""
    with path.open(newline='', encoding='utf-8') as file:
        names, *lines = list(csv.reader(file))
    return {line[0]: dict(zip(names, line, strict=True)) for line in lines}


def written_anew(table: dict[str, dict[str, str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A row a game that the table counts; a model that drew them all is the baseline."""
    for model, line in table.items():
        wins, losses, draws = (round(float(line[name])) for name in ('n_wins', 'n_wins_base', 'n_draws'))
        if wins or losses:
            for number, preference in enumerate([2] * wins + [1] * losses + [1.5] * draws):
                row = {'generator_1': BASELINE, 'generator_2': model, 'preference': preference, 'id': number}
                yield f'{model}, game {number}', row


def win_rates(found: Annotations) -> dict[str, float]:
    """In percent, of each model that meets one other."""
    met: dict[tuple[int, int], list[Any]] = {}
    for game in found.games:
        met.setdefault((min(game[:2]), max(game[:2])), []).append(game)
    opponents: dict[int, list[int]] = {}
    for a, b in met:
        opponents.setdefault(a, []).append(b)
        opponents.setdefault(b, []).append(a)
    rates = {}
    for one, others in opponents.items():
        if len(others) == 1:
            games = met[min(one, *others), max(one, *others)]
            rate = found._replace(games=games).win_rate(found.models[one], found.models[others[0]])
            rates[found.models[one]] = 100 * rate.value
    return rates


def strengths(found: Annotations) -> np.ndarray:
    """In logits: (K,)."""
    together = [(a, b, outcome, 0) for a, b, outcome, _ in found.games]
    return ratings.bradley_terry(ratings.tally(together, len(found.models)).sum(0))


def compared(found: Annotations, table: dict[str, dict[str, str]], column: str) -> dict[str, tuple[float, float]]:
    """Ours and the published number, by model: percent."""
    return {
        model: (rate, float(table[model].get(column) or table[model]['win_rate']))
        for model, rate in win_rates(found).items() if model in table and 'win_rate' in table[model]
    }  # fmt: skip


def strengths_off(found: Annotations, table: dict[str, dict[str, str]]) -> float:
    """The most that a published strength is from ours."""
    shares = dict(zip(found.models, softmax(strengths(found)), strict=True))
    given = [abs(shares[one] - float(line['bradley_terry'])) for one, line in table.items() if 'bradley_terry' in line]
    return float(max(given, default=0.0))


def from_evalica(found: Annotations) -> float | None:
    """The most that its strengths are from ours; None where it is not installed, or it has only wins and losses.

    It counts whole wins and draws, so judges' chances between them are left out of this.
    """
    if importlib.util.find_spec('evalica') is None or {outcome for *_, outcome, _ in found.games} - {0, 0.5, 1}:
        return None
    import evalica

    winners = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    first, second, outcomes = zip(*((a, b, winners[outcome]) for a, b, outcome, _ in found.games), strict=True)
    theirs = evalica.bradley_terry(first, second, outcomes, tolerance=1e-15, limit=1_000_000).scores.sort_index()
    theta = np.log(theirs.to_numpy())
    return float(np.abs(theta - theta.mean() - strengths(found)).max())


def main() -> int:
    """Print a line a leaderboard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--leaderboard', type=Path, nargs='+', required=True, help='tables')
    parser.add_argument('--annotations', type=Path, nargs='+', help='a file a table; from its counts if absent')
    args = parser.parse_args()
    if args.annotations and len(args.annotations) != len(args.leaderboard):
        parser.error('--annotations: one for each --leaderboard was expected')
    heads = ['leaderboard', 'games', 'win rates found', 'off, points', 'strengths off', 'evalica off, logits']
    print(f'| {" | ".join(heads)} |\n|{"---|" * len(heads)}')
    wrong, lines = 0, ['']
    for number, path in enumerate(args.leaderboard):
        table = published(path)
        if args.annotations:
            found, column = read_annotations(args.annotations[number]), 'win_rate'
        else:
            found, column = annotations_of(written_anew(table)), 'discrete_win_rate'
        rates, strength, logits = compared(found, table, column), strengths_off(found, table), from_evalica(found)
        points = {model: abs(ours - theirs) for model, (ours, theirs) in rates.items()}
        off = [model for model, apart in points.items() if apart > POINTS]
        wrong += bool(off) or strength > STRENGTH or (logits or 0.0) > LOGITS
        most = max((apart for model, apart in points.items() if model not in off), default=0.0)
        told = '-' if logits is None else f'{logits:.1e}'
        cells = [path.stem, str(len(found.games)), str(len(rates) - len(off)), f'{most:.1e}', f'{strength:.1e}', told]
        print(f'| {" | ".join(cells)} |', flush=True)
        lines += [f'{path.stem}, {one}: {rates[one][0]:.3f}, published {rates[one][1]:.3f}' for one in off]
    print(*lines, sep='\n')
    return 1 if wrong else 0


if __name__ == '__main__':
    raise SystemExit(main())
