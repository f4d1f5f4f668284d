"""Which two answers are compared: the candidate's with those of a file, of the data, or of the same row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from safe_align.config import UserError
from safe_align.datasets.grammar import parse_dataset
from safe_align.datasets.registry import RawDataset, RawSample
from safe_align.datasets.rows import prompt_hash
from safe_align.evaluate.judges._record import Comparison
from safe_align.evaluate.samples import ANSWERS, CHOSEN, Sample, SampleFile, check_same_prompts, read_samples, shown
from safe_align.evaluate.strata import categories_of
from safe_align.templates import turns_of

if TYPE_CHECKING:
    from safe_align.evaluate.compare import CompareConfig


class Compared(NamedTuple):
    """A comparison, the hash of its prompt, its number among those of that prompt, and the kind of prompt."""

    comparison: Comparison
    prompt: int
    sample: int
    category: str | None


@dataclass(frozen=True)
class Pairing:
    """All comparisons, and what they are called where results are written.

    Args:
        compared: in the order of the candidate's file.
        candidate: name of the candidate.
        baseline: name of the baseline.
        exp_name: of the experiment, as HALOs has it.
        config: of a sample file of HALOs.
        report: what was read of the data, for the record.
    """

    compared: list[Compared]
    candidate: str
    baseline: str
    exp_name: str
    config: dict[str, Any] | None
    report: list[dict[str, Any]]


def pair(config: CompareConfig) -> Pairing:
    """What is compared with what.

    Raises:
        UserError: a file or row cannot be used, or there is no baseline's answer to a prompt of the candidate's.
    """
    file = read_samples('samples', config.samples)
    key = file.key('candidate_key', config.candidate_key, ANSWERS)
    data, report = better_answers(config.datasets or ())
    if config.baseline is None and not config.datasets:
        own = file.key('baseline_key', config.baseline_key, CHOSEN)
        samples = file.samples(config.prompt_key, key, own)
        baselines, names = [one.texts[own] for one in samples], (key, own)
    else:
        samples, own = file.samples(config.prompt_key, key), None
        if config.baseline is None:
            baselines, names = _of_data(samples, data), (file.policy, CHOSEN[0])
        else:
            other = read_samples('baseline', config.baseline)
            names = (file.policy, other.policy) if file.policy != other.policy else (file.name, other.name)
            baselines = _of_file(config, samples, other)
    if not any(one.texts[key] for one in samples):
        raise UserError(f'--samples {file.path}: all {len(samples)} answers under {key} are empty')
    kinds = {**categories_of(config.datasets or ()), **_categories(samples)}
    numbers, compared = Counter[int](), list[Compared]()
    for one, baseline in zip(samples, baselines, strict=True):
        reference = one.row.get(config.reference_key) if own != config.reference_key else None
        if reference is None and config.baseline is not None:
            reference = data.get(one.prompt)
        comparison = Comparison(one.turns, one.texts[key], baseline, None if reference is None else str(reference))
        compared.append(Compared(comparison, one.prompt, numbers[one.prompt], kinds.get(one.prompt)))
        numbers[one.prompt] += 1
    exp_name = str((file.config or {}).get('exp_name', file.name))
    return Pairing(_drawn(compared, config), *names, exp_name, file.config, report)


def better_answers(specs: Iterable[str]) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """The better answer to each prompt of data sets, by the prompt's hash, and a report; the first one counts.

    All rows are looked up, whatever the proportion. A row without a label has no better answer, if it has two,
    and one with half of a surrogate pair is none.
    """
    found: dict[int, str] = {}
    report = []
    for spec in specs:
        name, attributes = parse_dataset(spec)
        raw_class, path = RawDataset.find(name), attributes.get('path')
        raw, used = raw_class(path=path) if path else raw_class(), 0
        for sample in raw:
            turns, answer = _better(sample)
            answer = (answer or '').strip()
            if turns and answer and answer == answer.encode(errors='replace').decode():
                found.setdefault(prompt_hash(turns), answer)
                used += 1
        report.append({'name': name, 'fingerprint': raw.fingerprint(), 'rows': len(raw), 'used': used})
    return found, report


def _better(sample: RawSample) -> tuple[list[str], str | None]:
    """The turns of the prompt, none if there is no prompt, and the answer that the data call better."""
    dialogue = sample.get('dialogue')
    if dialogue and not sample.get('input'):
        last = (len(dialogue) - 1) // 2 * 2 + 1  # as prompts are made of dialogues
        return dialogue[:last], dialogue[last] if last < len(dialogue) else None
    try:
        turns = turns_of(sample.get('input') or [])
    except ValueError:
        return [], None
    other, better = sample.get('other_answer'), sample.get('better')
    if better is None:
        return turns, sample.get('answer') if other is None else None
    return turns, sample.get('answer') if better else other


def _of_data(samples: Sequence[Sample], data: dict[int, str]) -> list[str]:
    missing = [one for one in samples if one.prompt not in data]
    if missing:
        prompts = {one.prompt for one in samples}
        raise UserError(
            f'--datasets: have no better answer to {len({one.prompt for one in missing})} of the {len(prompts)} '
            f'prompts of --samples, such as {shown(missing[0])}'
        )
    return [data[one.prompt] for one in samples]


def _of_file(config: CompareConfig, samples: Sequence[Sample], file: SampleFile) -> list[str]:
    """The first answer of each to a prompt is compared with the first of the other, and so on, over and over."""
    key = file.key('baseline_key', config.baseline_key, ANSWERS)
    others = file.samples(config.prompt_key, key)
    texts = defaultdict[int, list[str]](list)
    for one in others:
        texts[one.prompt].append(one.texts[key])
    check_same_prompts(f'--baseline {file.path}', {'--samples': samples, '--baseline': others})
    numbers, found = Counter[int](), []
    for one in samples:
        found.append(texts[one.prompt][numbers[one.prompt] % len(texts[one.prompt])])
        numbers[one.prompt] += 1
    return found


def _categories(samples: Sequence[Sample]) -> dict[int, str]:
    """What rows call the kind of their prompt."""
    return {one.prompt: str(one.row['category']) for one in samples if one.row.get('category') is not None}


def _drawn(compared: list[Compared], config: CompareConfig) -> list[Compared]:
    """As many as are asked for, in their order; fewer are some of those of more."""
    if config.max_comparisons is None:
        return compared
    order = np.random.default_rng(config.seed).permutation(len(compared))
    return [compared[n] for n in sorted(order[: config.max_comparisons])]
