"""The stage `compare` at work: answers are paired, a judge is asked, and what it says is counted."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from safe_align import distributed, plugins
from safe_align.checkpoint import write_json, write_jsonl
from safe_align.config import UserError
from safe_align.datasets.rows import prompt_name
from safe_align.engine import Placement
from safe_align.evaluate.fields import JUDGES
from safe_align.evaluate.judges._record import Comparison, Verdict
from safe_align.evaluate.pairing import Compared, Pairing, pair
from safe_align.evaluate.tables import write_csv
from safe_align.evaluate.verdicts import append, render, result_line, summarise
from safe_align.handoff import Run, models_of, start_run
from safe_align.models.scorer import Conversation, Scorer, load_scorer
from safe_align.online.annotating import SCORERS, check_means
from safe_align.online.records import Writer
from safe_align.options import check_pick
from safe_align.ownership import JUDGEMENTS
from safe_align.remote.journal import Journal
from safe_align.templates import messages_of

if TYPE_CHECKING:
    from safe_align.evaluate.compare import CompareConfig

CHUNK = 64  # comparisons that are judged together
NOBODY = Writer('', '')  # answers are read as text, whoever wrote them
Row = dict[str, Any]


@dataclass(frozen=True)
class Tools:
    """What a judge is given, as its folder says."""

    config: CompareConfig
    scores: Callable[[str, Sequence[tuple[list[str], str]]], list[float]]
    journal: Callable[[], Journal]
    say: Callable[[str], object]
    done: Callable[[int], object]
    summary: dict[str, Any] = field(default_factory=dict)


def run_compare(config: CompareConfig) -> int:
    """The whole stage."""
    placement = config.place()
    _check(config)
    pairing = pair(config)
    _check_reference(config, pairing)
    files = {name: given for name in ('samples', 'baseline') if (given := getattr(config, name))}
    run = start_run(config, 'compare', {**models_of(config), **files})
    if run is None:
        return 0
    said, told = _judged(config, run, Placement(bf16=placement.bf16), [one.comparison for one in pairing.compared])
    rows = [_row(one, row) for one, row in zip(pairing.compared, said, strict=True)]
    if all(row['verdict'] == 'unscored' for row in rows):
        raise UserError(f'--judge {config.judge}: gave no verdict on any of {len(rows)} comparisons')
    summary = {
        'candidate': pairing.candidate, 'baseline': pairing.baseline,
        'judge': {'name': config.judge, 'file': plugins.own_file(JUDGES, config.judge), **told}, **summarise(rows),
    }  # fmt: skip
    line = result_line(
        rows, summary, seed=config.seed, exp_name=pairing.exp_name, config=pairing.config or run.arguments
    )
    if distributed.is_main():
        print(render(summary))
    if config.results is not None:
        results = config.results
        distributed.on_main(lambda: append(results, line))
    run.record |= {'datasets': pairing.report, 'summary': summary}
    hashes = [one.prompt for one in pairing.compared]
    run.finish('evaluation', lambda directory: _write(directory, rows, summary, line), hashes)
    return 0


def _check(config: CompareConfig) -> None:
    """Refuse a judge that cannot work, before anything is read."""
    check_pick('judge', JUDGES, config, (*SCORERS, 'judge_url'))
    check_means('judge', config, _keeps(config))
    if config.results is not None and Path(config.results).expanduser().is_dir():
        raise UserError(f'--results {config.results}: is a directory; a file was expected')


def _check_reference(config: CompareConfig, pairing: Pairing) -> None:
    needs = getattr(plugins.load(JUDGES, config.judge), 'NEEDS_REFERENCE', False)
    if needs and all(one.comparison.reference is None for one in pairing.compared):
        raise UserError(
            f'--judge {config.judge}: no row has a right answer beside the two that are compared; give rows one under '
            '--reference_key, or --datasets beside --baseline'
        )


def _keeps(config: CompareConfig) -> bool:
    return bool(getattr(plugins.load(JUDGES, config.judge), 'KEEPS', False))


def _judged(
    config: CompareConfig, run: Run, placement: Placement, comparisons: Sequence[Comparison]
) -> tuple[list[Row], dict[str, Any]]:
    """What the judge says of each, on every process, and of itself."""
    rank, processes, keeps = distributed.rank(), distributed.world_size(), _keeps(config)
    mine, said = comparisons[rank::processes], list[Row]()
    with contextlib.ExitStack() as stack:
        seen = stack.enter_context(run.logger.progress('verdicts', len(comparisons), ' comparisons'))
        tools = Tools(
            config, functools.partial(_scores, functools.cache(functools.partial(_scorer, config, placement))),
            lambda: stack.enter_context(Journal(run.directory / JUDGEMENTS, run.logger.say, waits=True)),
            run.logger.say, seen if keeps else lambda _: None,
        )  # fmt: skip
        judge = plugins.load(JUDGES, config.judge).judge(tools)
        size = len(comparisons) if keeps else CHUNK
        for start in range(0, -(-len(comparisons) // processes), size):  # as often on every process
            chunk = mine[start : start + size]
            said += _checked(config.judge, chunk, judge(chunk))
            seen(0 if keeps else processes * len(chunk))
    gathered = distributed.gather_over_ranks([[rank + processes * n, row] for n, row in enumerate(said)])
    return [row for _, row in sorted(gathered, key=lambda one: one[0])], tools.summary


def _scorer(config: CompareConfig, placement: Placement, kind: str) -> Scorer:
    option = f'{kind}_model_name_or_path'
    return load_scorer(
        getattr(config, option), kind, f'--{option}', placement, NOBODY,
        budget=config.micro_batch_tokens, trust_remote_code=config.trust_remote_code,
    )  # fmt: skip


def _scores(scorer: Callable[[str], Scorer], kind: str, answers: Sequence[tuple[list[str], str]]) -> list[float]:
    return scorer(kind)([Conversation(turns, [], [], text) for turns, text in answers]).tolist()


def _checked(name: str, comparisons: Sequence[Comparison], said: Any) -> Iterator[Row]:
    """A dict for each comparison, with a verdict that is one.

    Raises:
        UserError: it is something else, or what no file of JSON can hold.
    """
    rows = [one if isinstance(one, dict) else {'verdict': one} for one in said]
    odd = [row.get('verdict') for row in rows if row.get('verdict') not in get_args(Verdict)]
    if odd or len(rows) != len(comparisons):
        raise UserError(
            f'--judge {name}: {len(comparisons)} times {", ".join(get_args(Verdict))} were expected, '
            f'found {len(rows)}: {(odd or rows)[:3]}'
        )
    try:
        json.dumps(rows)
    except (TypeError, ValueError) as error:
        raise UserError(f'--judge {name}: what it says of a comparison must be JSON: {error}') from error
    yield from rows


def _row(one: Compared, said: Row) -> Row:
    """Of comparisons.jsonl."""
    comparison = one.comparison
    row = {
        'prompt_id': prompt_name(one.prompt), 'sample_id': one.sample, 'category': one.category,
        'prompt': messages_of(comparison.turns), 'candidate': comparison.candidate, 'baseline': comparison.baseline,
        'reference': comparison.reference, 'verdict': said['verdict'],
    }  # fmt: skip
    return {**row, **{key: value for key, value in said.items() if key not in row}}


def _write(directory: Path, rows: Sequence[Row], summary: dict[str, Any], line: Row) -> None:
    if not distributed.is_main():
        return
    write_jsonl(directory / 'comparisons.jsonl', rows)
    names = dict.fromkeys(key for row in rows for key in row)  # a judge may say more of some than of others
    write_csv(directory / 'comparisons.csv', [
        {**dict.fromkeys(names), **row, 'prompt': '\n'.join(turn['content'] for turn in row['prompt'])} for row in rows
    ])  # fmt: skip
    write_jsonl(directory / 'results.jsonl', [line])
    write_json(directory / 'summary.json', summary)
