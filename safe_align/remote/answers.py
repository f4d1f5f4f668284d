"""The answer of an OpenAI-compatible server, checked before anyone relies on it."""

from __future__ import annotations

import json
import math
from typing import Any, Literal, NamedTuple


class Answer(NamedTuple):
    """What a server said to one request.

    Args:
        text: what was generated.
        is_finished: whether it came to an end, and was not cut off.
        ids: of the text, where the server tells (`return_token_ids` of vLLM and SGLang).
        log_probs: one a token, where the server tells.
        prompt_ids: what the server made of the prompt, where it tells.
        prompt_tokens: that were paid for.
        completion_tokens: that were paid for.
        refusal: why there is no text, where the server says that it keeps it back.
    """

    text: str
    is_finished: bool
    ids: list[int] | None
    log_probs: list[float] | None
    prompt_ids: list[int] | None
    prompt_tokens: int
    completion_tokens: int
    refusal: str | None = None


def decode(body: str) -> dict[str, Any]:
    """The JSON object that a server sent.

    Raises:
        ValueError: it is none; it says so.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError('no JSON') from None
    if not isinstance(value, dict):
        raise ValueError('no JSON object')
    return value


def read(body: str, api: Literal['completions', 'chat']) -> Answer:
    """The first choice of a whole answer.

    Raises:
        ValueError: it has another shape; it says what is wrong.
    """
    value = decode(body)
    choices = value.get('choices')
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError('no choices')
    choice = choices[0]
    message = choice.get('message')
    text = choice.get('text') if api == 'completions' else _content(message)
    if not isinstance(text, str):
        raise ValueError('no text')
    ids = _integers(choice.get('token_ids'), 'token_ids')
    log_probs = _log_probs(choice.get('logprobs'), api)
    if ids is not None and log_probs is not None and len(ids) != len(log_probs):
        raise ValueError(f'{len(ids)} tokens with {len(log_probs)} log-probabilities')
    prompt_ids = _integers(choice.get('prompt_token_ids') or value.get('prompt_token_ids'), 'prompt_token_ids')
    end = choice.get('finish_reason')
    refusal = 'content filter' if end == 'content_filter' else None
    if isinstance(message, dict) and isinstance(message.get('refusal'), str):
        text, refusal = text or message['refusal'], 'refusal'
    text = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')  # no file holds half a surrogate pair
    return Answer(text, end == 'stop', ids, log_probs, prompt_ids, *_usage(value.get('usage')), refusal)


def _usage(value: Any) -> tuple[int, int]:
    """Tokens in and out; some servers count nothing."""
    given = [value.get(name) if isinstance(value, dict) else 0 for name in ('prompt_tokens', 'completion_tokens')]
    paid_in, paid_out = (count if isinstance(count, int) else 0 for count in given)
    return paid_in, paid_out


def _content(message: Any) -> Any:
    """What was said; '' where the server withholds it, as a filter does."""
    if not isinstance(message, dict) or 'content' not in message:
        return None
    return '' if message['content'] is None else message['content']


def _integers(value: Any, name: str) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
        raise ValueError(f'{name} that are no token ids')
    return value


def _log_probs(value: Any, api: str) -> list[float] | None:
    """One number a token: completions list them by themselves, chat has them in an object a token."""
    listed = value.get('token_logprobs' if api == 'completions' else 'content') if isinstance(value, dict) else None
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise ValueError('log-probabilities that are no list')
    numbers: list[Any] = listed
    if api == 'chat':
        numbers = [one.get('logprob') if isinstance(one, dict) else None for one in listed]
    if not all(type(one) in (int, float) and math.isfinite(one) for one in numbers):
        raise ValueError('log-probabilities that are no numbers')
    return [float(one) for one in numbers]
