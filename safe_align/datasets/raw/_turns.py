"""Conversations as files write them: lists of {role, content}, transcripts, and plain texts."""

from __future__ import annotations

import re
from typing import Any

from safe_align.datasets.registry import RawSample

Turns = list[tuple[str, str]]
ROLES = {'system': 'user', 'user': 'user', 'assistant': 'assistant'}  # a system text goes before the user's first
SPEAKERS = {'Human': 'user', 'Assistant': 'assistant'}
WEAK = ('weak_chosen', 'weak_rejected')  # a second pair to the same prompt, closer to each other
TRANSCRIPT = re.compile(r'\n\n(Human|Assistant):')  # Anthropic's own hh-rlhf files


def pair(row: dict[str, Any]) -> RawSample:
    """`chosen` and `rejected`, to what is at `prompt` or to what both begin with; a weaker pair where there is one.

    Raises:
        ValueError: they cannot be read, or do not answer the same prompt.
    """
    weak = [key for key in WEAK if key in row]
    if weak and len(weak) < 2:
        raise ValueError(f'{weak[0]} without the other of {" and ".join(WEAK)}')
    if 'prompt' not in row and isinstance(row['chosen'], str) and isinstance(row['rejected'], str):
        if weak:
            raise ValueError(f'{" and ".join(WEAK)} need a prompt')
        row = _with_prompt(row['chosen'], row['rejected'])
    prompts, answers = zip(*(split(continued(row, key)) for key in ('chosen', 'rejected', *weak)), strict=True)
    if any(prompt != prompts[0] for prompt in prompts):
        raise ValueError(f'{", ".join(("chosen", "rejected", *weak))} do not answer the same prompt')
    sample = RawSample(input=prompts[0], answer=answers[0] or '', other_answer=answers[1] or '', better=True)
    if weak:
        sample |= RawSample(weak_answer=answers[2] or '', weak_other_answer=answers[3] or '')
    return sample


def turns_at(row: dict[str, Any], key: str, role: str) -> Turns:
    """The turns at `key`, neighbours of one role joined; a string is one turn of `role`."""
    value = row[key]
    if isinstance(value, str):
        return [(role, value)]
    if not isinstance(value, list):
        raise ValueError(f'{key} must be a text or a list of {{role, content}}, found {type(value).__name__}')
    turns: Turns = []
    for message in value:
        if not isinstance(message, dict) or not {'role', 'content'} <= message.keys():
            raise ValueError(f'{key}: expected {{role, content}}, found {str(message)[:60]}')
        if not isinstance(message['role'], str) or message['role'] not in ROLES:
            raise ValueError(f'{key}: the role must be one of {", ".join(ROLES)}, found {message["role"]!r:.80}')
        content = message['content'] if message['content'] is not None else ''
        turns.append((ROLES[message['role']], text_at({key: content}, key)))
    return joined(turns)


def joined(turns: Turns) -> Turns:
    """The turns, neighbours of one role as one."""
    found: Turns = []
    for role, text in turns:
        if found and found[-1][0] == role:
            found[-1] = (role, '\n\n'.join(part for part in (found[-1][1], text) if part))
        else:
            found.append((role, text))
    return found


def continued(row: dict[str, Any], key: str) -> Turns:
    """The prompt and what follows it at `key`; whole conversations that repeat the prompt are taken as they are."""
    prompt = turns_at(row, 'prompt', 'user') if 'prompt' in row else []
    turns = turns_at(row, key, 'assistant')
    if prompt and turns and prompt[-1][0] == turns[0][0] == 'user':
        if len(turns) < len(prompt) or not turns[len(prompt) - 1][1].endswith(prompt[-1][1]):
            raise ValueError(f'{key} starts with a turn of the user that is not the prompt')
        return turns
    return joined(prompt + turns)


def split(turns: Turns) -> tuple[str | list[str], str | None]:
    """The prompt, a text if it is one turn, and the last answer if the conversation ends with one."""
    if not turns or turns[0][0] != 'user':
        raise ValueError('a conversation must start with a turn of the user (is there a prompt?)')
    answer = turns[-1][1] if turns[-1][0] == 'assistant' else None
    texts = [text for _, text in (turns if answer is None else turns[:-1])]
    return (texts[0] if len(texts) == 1 else texts), answer


def is_transcript(text: str) -> bool:
    """Whether the text is written as Anthropic writes conversations."""
    return text.startswith('\n\nHuman:')


def transcript(text: str) -> Turns:
    """The turns of a text of `Human:` and `Assistant:`, each behind an empty line; neighbours of one role joined."""
    _, *parts = TRANSCRIPT.split(text)
    return joined([(SPEAKERS[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)])


def _with_prompt(chosen: str, rejected: str) -> dict[str, Any]:
    """Two whole texts as prompt, chosen and rejected: transcripts by their speakers, others by their common words."""
    if is_transcript(chosen) and is_transcript(rejected):
        texts = {'chosen': chosen, 'rejected': rejected}
        return {
            key: [{'role': role, 'content': said} for role, said in transcript(text)] for key, text in texts.items()
        }
    common = ''
    for word, other in zip(*(re.findall(r'\S+|\s+', text) for text in (chosen, rejected)), strict=False):
        if word != other:
            break
        common += word
    if not common.strip():
        raise ValueError('there is no prompt, and chosen and rejected share no beginning that could be one')
    chosen, rejected = (text[len(common) :].lstrip() for text in (chosen, rejected))
    return {'prompt': common.strip(), 'chosen': chosen, 'rejected': rejected}


def text_at(row: dict[str, Any], key: str) -> str:
    """The text at `key`, and nothing else than a text."""
    if not isinstance(row[key], str):
        raise ValueError(f'{key} must be a text, found {type(row[key]).__name__}')
    return row[key]
