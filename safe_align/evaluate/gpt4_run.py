"""A run of the judge: answers of two sides, what the judge says of each pair, and what is written of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_align import distributed
from safe_align.checkpoint import write_json, write_jsonl
from safe_align.config import UserError
from safe_align.datasets.rows import prompt_name
from safe_align.evaluate.gpt4_answers import Game, read_games
from safe_align.evaluate.gpt4_summary import render, summarise
from safe_align.handoff import Run, models_of, start_run
from safe_align.ownership import JUDGEMENTS, PARTS, remove
from safe_align.remote.journal import Journal
from safe_align.remote.judging import PAID, Judge, check, open_judge
from safe_align.remote.questions import QUESTIONS, Pair

if TYPE_CHECKING:
    from safe_align.evaluate.gpt4 import Gpt4Config

Row = dict[str, Any]
SIDES = {'first': 'red', 'second': 'blue', 'tie': 'tie', 'abstain': 'unscored', None: None}
IDENTICAL = 'identical answers'  # a tie that nobody is asked about


def run_gpt4(config: Gpt4Config) -> int:
    """The whole stage."""
    if distributed.launched():
        raise UserError(
            '--judge_url: the judge is asked by one process; start it without a launcher (policies that need several '
            'can be sampled before, by safe_align.online.sample, and read by --responses)'
        )
    check(config)
    corners, games = None, list[Game]()
    sides: Sequence[str | None] = [config.red_corner_model_name_or_path, config.blue_corner_model_name_or_path]
    if config.responses:
        games, sides = read_games(config, lambda text: print(f'gpt4: {text}'))
    else:
        from safe_align.evaluate.corners import Corners

        corners = Corners(config)
    names = ('responses', 'responses_2')
    run = start_run(config, 'gpt4', {**models_of(config), **dict(zip(names, config.responses, strict=False))})
    if run is None:
        return 0
    with Journal(run.directory / JUDGEMENTS, run.logger.say, waits=True) as journal:
        judge = open_judge(config, journal, QUESTIONS[config.compare])
        games = corners.games(run) if corners else games
        rows = ask(judge, games, run)
        summary = {'red': sides[0], 'blue': sides[1], **_judge(config, judge), **summarise(rows)}
    run.record |= {'datasets': corners.prompts.report if corners else [], 'summary': summary}
    print(render(summary))
    run.finish('evaluation', lambda directory: _write(directory, rows, summary), {game.key for game in games})
    remove(run.directory / PARTS)
    return 0


def ask(judge: Judge, games: Sequence[Game], run: Run) -> list[Row]:
    """A row a pair."""
    pairs = [Pair(game.turns, game.red, game.blue) for game in games]
    with run.logger.progress('pairs', len(pairs), ' pair') as seen:
        verdicts = judge(pairs, lambda number, verdict: seen(1))
    rows = []
    for game, pair, verdict in zip(games, pairs, verdicts, strict=True):
        row: Row = {
            'prompt_id': prompt_name(game.key), 'sample': game.sample, 'prompt': '\n'.join(game.turns),
            'category': game.category, 'red_answer': game.red, 'blue_answer': game.blue, 'verdict': 'tie',
            'reason': IDENTICAL, 'red_first': None, 'blue_first': None,
        }  # fmt: skip
        if game.red != game.blue:
            said = judge.said(pair)
            row |= {
                'verdict': SIDES[verdict.result], 'reason': next((one.lacks for one in said if one.lacks), None),
                'red_first': {'verdict': SIDES[verdict.as_given], 'text': said[0].text},
                'blue_first': {'verdict': SIDES[verdict.swapped], 'text': said[1].text},
            }  # fmt: skip
        rows.append(row)
    return rows


def _judge(config: Gpt4Config, judge: Judge) -> Row:
    """Who judged, what it was asked, and what was paid to it since the run first started."""
    told = judge.told()
    money = sum(told[name] * price / 1e6 for name, price in zip(PAID, config.judge_prices, strict=False))
    return {
        'judge': told['model'], 'compare': config.compare if config.judge_template is None else None,
        'judge_template': told['template'], 'answers_paid': told['answers'], **{name: told[name] for name in PAID},
        'money': money if config.judge_prices else None,
    }  # fmt: skip


def _write(directory: Path, rows: Sequence[Row], summary: Row) -> None:
    write_jsonl(directory / 'eval.jsonl', rows)
    write_json(directory / 'summary.json', summary)
