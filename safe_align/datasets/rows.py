"""One raw sample as token ids, for each kind of use; a sample that cannot be used says why."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from safe_align.datasets.registry import LARGEST
from safe_align.datasets.responses import Response, Skip, answer_of, fit, response_of
from safe_align.templates import Span, Template, turns_of

LABELS = ('better', 'safer', 'safe')  # by which one answer is chosen, or an answer desirable
GOOD, BAD = '<|good|>', '<|bad|>'  # what a prompt ends with whose answer is desirable, or is not


class Row(NamedTuple):
    """What a stage reads of one sample: its sequences (one, or two of a pair), numbers, and the turns of its prompt."""

    sequences: list[list[Span]]
    fields: dict[str, float]
    turns: list[str]
    cut: bool = False
    """Whether it was too long."""


def prompt_hash(turns: Sequence[str]) -> int:
    """64 bits that stand for a prompt: equal for equal conversations, whatever tokenizer or template writes them."""
    text = json.dumps([' '.join(turn.split()) for turn in turns], ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(text.encode(errors='surrogatepass'), digest_size=8).digest(), 'big')


def prompt_name(key: int) -> str:
    """A prompt's hash as 16 digits."""
    return f'{int(key):016x}'


def _turns(sample: Any) -> list[str]:
    text = sample.get('input')
    if not text:
        raise Skip('no prompt')
    try:
        turns = turns_of(text)
    except ValueError:
        raise Skip('prompt does not end with a user turn') from None
    except TypeError:
        raise Skip('a turn is no text') from None
    return _checked(turns)


def _checked(turns: list[Any]) -> list[str]:
    if not all(isinstance(turn, str) for turn in turns):
        raise Skip('a turn is no text')
    if not all(turn.strip() for turn in turns):
        raise Skip('empty turn')
    return turns


def _dialogue(sample: Any) -> list[str]:
    """The turns up to the assistant's last."""
    turns = sample['dialogue']
    if not isinstance(turns, list | tuple):
        raise Skip('dialogue is no list of turns')
    return _checked([*turns[: len(turns) // 2 * 2]])


def _flag(sample: Any, key: str) -> bool:
    if sample.get(key) is None:
        raise Skip(f'no label {key!r}')
    if sample[key] not in (0, 1):  # a text such as 'no' would be true
        raise Skip(f'label {key!r} is neither true nor false')
    return bool(sample[key])


def supervised(sample: Any, template: Template, max_length: int, by: str | None = None) -> Row:
    """A response to learn: the better one where the sample has two; every assistant turn of a dialogue.

    With `by`, one of `LABELS`, the one that it calls better.
    """
    if sample.get('dialogue'):
        turns = _dialogue(sample)
        spans = template.dialogue(turns)
        room, kept = max_length, []
        for span in spans:
            if room > 0:
                kept.append(Span(span.ids[:room], span.is_response))
            room -= len(span.ids)
        if not any(span.is_response and span.ids for span in kept):
            raise Skip('nothing left after truncation')
        return Row([kept], {**_numbers(sample), 'sampled_chosen_logps': math.nan}, turns[:1], room < 0)
    turns = _turns(sample)
    has_label = by is not None or sample.get('better') is not None
    keys = [key for key, is_desirable in _labelled(sample, by or 'better') if is_desirable] if has_label else ['answer']
    if not keys:
        raise Skip('undesirable answer')
    prompt, response = template.prompt(turns), response_of(sample, keys[0], template)
    sequences = [fit(prompt, response.ids, max_length)]
    return _row(sequences, [(prompt, response)], _numbers(sample, keys[0] == 'answer'), turns, ('chosen_',))


def preference(sample: Any, template: Template, max_length: int, by: str = 'better') -> Row:
    """The chosen and the rejected answer, with `is_safe` of each where the labels are there (-1 where not).

    `by` is one of `LABELS`; 'safe' takes the pairs of which just one answer is labelled safe.
    """
    first = _is_first_chosen(sample, by)
    chosen, rejected = _safety(sample) if first else _safety(sample)[::-1]
    labels = {'is_chosen_safe': chosen, 'is_rejected_safe': rejected}
    return _pair(sample, template, max_length, first, labels, ('chosen_', 'rejected_'))


def preferences(sample: Any, template: Template, max_length: int, by: str = 'better') -> Row:
    """The chosen and the rejected answer of a pair, and those of a second one that differ less."""
    stronger = preference(sample, template, max_length, by)
    weaker = {'answer': answer_of(sample, 'weak_answer'), 'other_answer': answer_of(sample, 'weak_other_answer')}
    second = _pair({**sample, **weaker, 'tokenizer': None}, template, max_length, True, {})
    return stronger._replace(sequences=[*stronger.sequences, *second.sequences], cut=stronger.cut or second.cut)


def answers(
    sample: Any, template: Template, max_length: int, by: str = 'better', conditioned: bool = False
) -> list[Row]:
    """Each answer by itself, with 1 for what is desirable and 0 for what is not under `labels`.

    A sample has one answer or a pair. With 'safe', of `LABELS`, an answer's own label says so; else the pair's.
    `conditioned` prompts end with what their answers are; no answer was sampled to such a one.
    """
    turns, rows = _turns(sample), []
    for key, is_desirable in _labelled(sample, by):
        asked = [*turns[:-1], f'{turns[-1]} {GOOD if is_desirable else BAD}'] if conditioned else turns
        prompt, response = template.prompt(asked), response_of(sample, key, template)
        response = Response(response.ids) if conditioned else response
        numbers = {'labels': float(is_desirable), **_numbers(sample, is_desirable == (key == 'answer'))}
        rows.append(_row([fit(prompt, response.ids, max_length)], [(prompt, response)], numbers, turns, ('',)))
    return rows


def _labelled(sample: Any, by: str) -> list[tuple[str, bool]]:
    """The answers of a sample, and whether each is desirable."""
    has_other = sample.get('other_answer') is not None
    if by != 'safe':
        first = _flag(sample, by)
        if has_other and sample.get('answer') == sample['other_answer']:
            raise Skip('identical pair')
        return [('answer', first), *([('other_answer', not first)] if has_other else [])]
    labels = (('answer', 'is_safe'), *((('other_answer', 'is_other_safe'),) if has_other else ()))
    found = [(key, _flag(sample, label)) for key, label in labels if sample.get(label) is not None]
    if not found:
        raise Skip("no label 'is_safe'")
    return found


def _is_first_chosen(sample: Any, by: str) -> bool:
    if by != 'safe':
        return _flag(sample, by)
    first, other = (_flag(sample, key) for key in ('is_safe', 'is_other_safe'))
    if first == other:
        raise Skip('both answers safe' if first else 'no answer safe')
    return first


def safety_preference(sample: Any, template: Template, max_length: int) -> Row:
    """The safer and the unsafer answer, with `is_safe` of each where the labels are there (-1 where not)."""
    safer = _flag(sample, 'safer')
    is_safe, is_other_safe = sample.get('is_safe'), sample.get('is_other_safe')
    one_is_safe = is_safe is not None and is_other_safe is not None and bool(is_safe) != bool(is_other_safe)
    if one_is_safe and bool(is_safe) != safer:
        raise Skip('contradicting safety labels')
    first, second = _safety(sample) if safer else _safety(sample)[::-1]
    return _pair(sample, template, max_length, safer, {'is_safer_safe': first, 'is_unsafer_safe': second})


def _safety(sample: Any) -> list[float]:
    return [-1.0 if sample.get(key) is None else float(_flag(sample, key)) for key in ('is_safe', 'is_other_safe')]


def prompt_only(sample: Any, template: Template, max_length: int) -> Row:
    """A prompt to answer; `max_length` is what leaves room for the answer."""
    if not sample.get('input') and isinstance(sample.get('dialogue'), list | tuple):
        sample = {**sample, 'input': sample['dialogue'][: (len(sample['dialogue']) - 1) // 2 * 2 + 1]}
    turns = _turns(sample)
    prompt = template.prompt(turns)
    if len(prompt) > max_length:
        raise Skip('prompt too long')
    return Row([[Span(prompt, False)]], _numbers(sample), turns)


def _pair(
    sample: Any, template: Template, max_length: int, first: bool, fields: dict[str, float], sides: Sequence[str] = ()
) -> Row:
    turns, keys = _turns(sample), ('answer', 'other_answer') if first else ('other_answer', 'answer')
    if sample.get('answer') == sample.get('other_answer'):
        raise Skip('identical pair')
    responses = [response_of(sample, key, template) for key in keys]
    whole = template.prompt(turns)
    longest = max((response.ids for response in responses), key=len)
    prompt = fit(whole, longest, max_length)[0].ids  # both answer the same prompt
    pair = [fit(prompt, response.ids, max_length) for response in responses]
    if pair[0][1] == pair[1][1]:
        raise Skip('identical pair after truncation')
    numbers = {**fields, **_numbers(sample, first)}
    return _row(pair, [(whole, response) for response in responses], numbers, turns, sides)


def _row(
    sequences: list[list[Span]], whole: list[tuple[list[int], Response]], fields: dict[str, float], turns: list[str],
    sides: Sequence[str],
) -> Row:  # fmt: skip
    """With whether a sequence is shorter than its whole prompt and response, and `sampled_*logps` of the whole ones."""
    lengths = [sum(len(span.ids) for span in spans) for spans in sequences]
    cut = [length < len(prompt) + len(response.ids) for length, (prompt, response) in zip(lengths, whole, strict=True)]
    sampled = {
        f'sampled_{side}logps': math.nan if is_cut else response.log_prob
        for side, is_cut, (_, response) in zip(sides, cut, whole, strict=False)
    }
    return Row(sequences, {**fields, **sampled}, turns, any(cut))


def _numbers(sample: Any, first: bool = True) -> dict[str, float]:
    """Weight, and margin: the one given, or by how much the chosen answer's score, `first` or not, is the higher."""
    weight, margin = (1.0 if sample.get('weight') is None else sample['weight']), sample.get('margin')
    try:
        if margin is None and None not in (scores := (sample.get('score'), sample.get('other_score'))):
            margin = (float(scores[0]) - float(scores[1])) * (1 if first else -1)
        numbers = {'weight': float(weight), 'margin': 0.0 if margin is None else float(margin)}
    except (TypeError, ValueError, OverflowError):
        raise Skip('weight or margin is no number') from None
    if not all(abs(number) <= LARGEST for number in numbers.values()) or numbers['weight'] < 0:
        raise Skip('weight is negative, or weight or margin not finite')
    return numbers


KINDS: dict[str, Callable[[Any, Template, int], Row | list[Row]]] = {
    'supervised': supervised,
    'preference': preference,
    'safety_preference': safety_preference,
    'prompt': prompt_only,
    **{f'supervised by {label}': partial(supervised, by=label) for label in LABELS},
    **{f'preference by {label}': partial(preference, by=label) for label in LABELS},
    **{f'preferences by {label}': partial(preferences, by=label) for label in LABELS},
    **{f'answers by {label}': partial(answers, by=label) for label in LABELS},
    **{f'conditioned by {label}': partial(answers, by=label, conditioned=True) for label in LABELS},
}
