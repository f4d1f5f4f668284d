"""Held-out pairs and their scores: what the evaluations of reward and cost models are, from options to directory."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_align import distributed, functions
from safe_align.checkpoint import write_json, write_jsonl
from safe_align.datasets.grammar import parse_dataset
from safe_align.datasets.mixture import Mixture, build
from safe_align.datasets.rows import prompt_name
from safe_align.engine import Placement
from safe_align.evaluate import score_figures
from safe_align.evaluate.agreement import SIDES, Kind, Row, render, summarise
from safe_align.evaluate.answers import score
from safe_align.evaluate.certification.scored_answers import without_zero
from safe_align.evaluate.fields import POLICY as MODEL
from safe_align.evaluate.strata import categories_of
from safe_align.handoff import Run, models_of, prompts_of, start_run
from safe_align.models.scorer import Conversation, check_scorer, load_scorer, own_template
from safe_align.ownership import PROMPTS
from safe_align.templates import Template

if TYPE_CHECKING:
    from safe_align.evaluate.fields import ScoreModelFields

ROWS = {'reward': 'preference', 'cost': 'safety_preference'}


def run_evaluation(config: ScoreModelFields, kind: Kind) -> int:
    """The whole stage."""
    placement, model = config.place(), config.model_name_or_path
    check_scorer(model, kind, MODEL, config.max_length, config.trust_remote_code)
    is_function = functions.is_function(model)
    template = _reader_of_text() if is_function else own_template(model, MODEL, config.trust_remote_code)
    pairs = build(
        config.datasets, ROWS[kind], template, sys.maxsize if is_function else config.max_length, seed=config.seed,
        strict=config.strict_data, flag='--datasets',
    )  # fmt: skip
    notes = _notes(config, kind, pairs)
    run = start_run(config, f'{kind}_evaluation', models_of(config))
    if run is None:
        return 0
    rows, conversations = _rows(config, kind, pairs, template)
    repeated = len(pairs) - len(rows)
    if repeated:
        notes.append(f'{repeated} pairs that are there twice count once')
    scores = _scores(config, kind, run, placement, template, conversations)
    for row in rows:
        row |= {f'{side}_{kind}': scores[row[side]] for side in SIDES[kind]}
    summary = {'model': model, 'notes': notes, 'num_repeated': repeated, **summarise(rows, kind)}
    run.record |= {'datasets': pairs.report, 'summary': summary}
    if distributed.is_main():
        print(render(summary, kind))
    run.finish('evaluation', lambda directory: _write(directory, rows, summary, kind), pairs.hashes)
    return 0


def _reader_of_text() -> Template:
    """A template whose ids are bytes: what a score function reads is the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({'': 0, **{one: n for n, one in enumerate(alphabet, 1)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return Template(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token='\0'))


def _notes(config: ScoreModelFields, kind: Kind, pairs: Mixture) -> list[str]:
    """What takes something away from the numbers below."""
    model, notes = config.model_name_or_path, list[str]()
    if functions.is_function(model):
        return notes
    trained = Path(model).expanduser() / PROMPTS
    prompts = np.unique(pairs.hashes)
    seen = int(np.isin(prompts, prompts_of(trained.parent)).sum()) if trained.is_file() else 0
    if seen:
        notes.append(f'the model was trained on {seen} of these {len(prompts)} prompts, which are not held out')
    if kind == 'cost' and (why := without_zero(model, config.trust_remote_code)):
        notes.append(f'{why}, so a cost above 0 does not mean unsafe')
    return notes


def _rows(
    config: ScoreModelFields, kind: Kind, pairs: Mixture, template: Template
) -> tuple[list[Row], dict[str, Conversation]]:
    """A row a pair, without its scores, and each response once, by the name that rows have it under."""
    lower, higher = SIDES[kind]
    datasets = _datasets(config.datasets)
    categories = categories_of(config.datasets)
    rows: dict[tuple[str, str], Row] = {}
    conversations: dict[str, Conversation] = {}
    samples: dict[str, int] = {}
    for number, (turns, key) in enumerate(zip(pairs.turns(), pairs.hashes.tolist(), strict=True)):
        row: Row = {'dataset': datasets[pairs.rows[number, 0]], 'prompt': prompt_name(key)}
        row |= {'category': categories[key]} if key in categories else {}
        order = (higher, lower) if kind == 'reward' else (lower, higher)  # what is wanted stands first in a pair
        for side, (ids, is_response) in zip(order, pairs.sequences(number), strict=True):
            response = ids[is_response.astype(bool)]
            row[side] = hashlib.blake2b(response.tobytes() + key.to_bytes(8, 'big'), digest_size=8).hexdigest()
            prompt = ids[~is_response.astype(bool)].tolist()
            conversations.setdefault(
                row[side], Conversation(turns, prompt, response.tolist(), template.text(response.tolist()))
            )
        if kind == 'cost':
            labels = {name: float(pairs.fields(number)[name]) for name in (f'is_{lower}_safe', f'is_{higher}_safe')}
            row |= {name: None if label < 0 else bool(label) for name, label in labels.items()}
        if rows.setdefault((row[lower], row[higher]), row) is row:
            row['sample'] = samples[row['prompt']] = samples.get(row['prompt'], -1) + 1
    return [*rows.values()], conversations


def _datasets(specs: Sequence[str]) -> list[str]:
    """What the data sets of a mixture's parts are called: by name, or as they were asked for where two have one."""
    used = [(parse_dataset(spec)[0], spec) for spec in specs if parse_dataset(spec)[1]['proportion']]
    names = [name for name, _ in used]
    return [name if names.count(name) == 1 else spec for name, spec in used]


def _scores(
    config: ScoreModelFields, kind: Kind, run: Run, placement: Placement, template: Template,
    conversations: dict[str, Conversation],
) -> dict[str, float]:  # fmt: skip
    """The score of each response, which one of the processes has read."""
    scorer = load_scorer(
        config.model_name_or_path, kind, MODEL, placement, template, budget=config.micro_batch_tokens,
        trust_remote_code=config.trust_remote_code,
    )  # fmt: skip
    mine = [*conversations][distributed.rank() :: distributed.world_size()]
    found = score(run, scorer, [conversations[name] for name in mine], f'{kind}s')
    return dict(distributed.gather_over_ranks([*map(list, zip(mine, found, strict=True))]))


def _write(directory: Path, rows: list[Row], summary: dict[str, Any], kind: Kind) -> None:
    if not distributed.is_main():
        return
    write_jsonl(directory / 'scores.jsonl', rows)
    write_json(directory / 'summary.json', summary)
    score_figures.draw(rows, summary, kind, directory)
