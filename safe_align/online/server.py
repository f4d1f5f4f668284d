"""Responses of an OpenAI-compatible server to the prompts of a policy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from safe_align.config import UserError
from safe_align.online.records import Drawn
from safe_align.remote.answers import Answer
from safe_align.remote.endpoint import Endpoint, Request
from safe_align.sampling import Sampling
from safe_align.templates import Template, messages_of

# without these a server cuts the law by what the model's directory or the server itself thinks best; -1 and the like
# switch that off in vLLM, SGLang and llama.cpp, and others refuse to know them
WHOLE_LAW = {'top_k': -1, 'min_p': 0.0, 'repetition_penalty': 1.0}
IDS = 'ids of a prompt'  # servers that take text alone say that it must be a string
NAMES = (*WHOLE_LAW, 'return_token_ids', 'stop_token_ids', 'logprobs', 'seed')
OPTIONAL = {IDS: r'(?is)prompt.*\bstring\b', **{name: rf'\b{name}\b' for name in NAMES}}


def respond(
    endpoint: Endpoint,
    template: Template,
    turns: Sequence[Sequence[str]],
    sampling: Sampling,
    keys: Sequence[int],
    each: Callable[[Drawn, Answer], object],
    *,
    need_log_probs: bool = True,
    done: Collection[tuple[int, int]] = (),
) -> None:
    """Draw `sampling.num_samples` responses to each prompt; each is handed over as it comes, in any order.

    Log-probabilities are the server's own: vLLM gives those of temperature 1, whatever it sampled at, unless it was
    started with `--logprobs-mode processed_logprobs`.

    Args:
        endpoint: the server. By its 'completions' API a prompt goes as ids, or as text if it takes no ids; by its
            'chat' API as messages.
        template: the policy's.
        turns: prompts, each of the turns user, assistant, ..., user.
        sampling: how to draw; of its laws the temperatures count, the backend and the batch size are the server's.
        keys: what a prompt's seeds depend on, with the seed and the sample number.
        each: called in this thread, with the answer that it was made of too.
        need_log_probs: whether a server without them is an error; if not, they are not asked for.
        done: pairs of prompt and sample that are there already.

    Raises:
        UserError: the server failed, or gives no log-probabilities; what had come by then has been handed over.
    """
    pairs = [(n, k) for n in range(len(turns)) for k in range(sampling.num_samples) if (n, k) not in done]

    def hand_over(number: int, answer: Answer) -> None:
        prompt, sample = pairs[number]
        if need_log_probs and answer.log_probs is None:
            raise UserError(
                f'--server_url {endpoint.server.url}: gives no log-probabilities of {endpoint.model}; '
                'take a server that does, such as vLLM, or do without by --server_log_probs none'
            )
        each(_drawn(answer, template, turns[prompt], prompt, sample, need_log_probs), answer)

    endpoint.ask(
        (_request(endpoint, template, turns[n], sampling, k, seed_of(sampling.seed, keys[n], k), need_log_probs)
         for n, k in pairs),
        hand_over,
        OPTIONAL,
    )  # fmt: skip


def seed_of(seed: int, key: int, sample: int) -> int:
    """The seed of one response, of 31 bits, as all servers take."""
    digest = hashlib.blake2b(repr((seed, key, sample)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, 'big') >> 1


def _request(
    endpoint: Endpoint, template: Template, turns: Sequence[str], sampling: Sampling, sample: int, seed: int,
    need_log_probs: bool,
) -> Request:  # fmt: skip
    ids, is_chat = template.prompt(turns), endpoint.server.api == 'chat'
    temperature = sampling.temperature * sampling.law(sample).temperature

    def make(refused: frozenset[str]) -> dict[str, Any]:
        content: dict[str, Any] = {
            'max_tokens': sampling.room(len(ids)), 'temperature': temperature, 'top_p': sampling.top_p,
            'seed': seed, 'return_token_ids': True, 'stop_token_ids': template.stop_ids, **WHOLE_LAW,
        }  # fmt: skip
        if need_log_probs:
            content['logprobs'] = (
                True if is_chat else 1
            )  # a number of alternatives, of which some servers read 0 as off
        content = {name: value for name, value in content.items() if name not in refused}
        if is_chat:
            return {'messages': messages_of(turns), **content}
        return {'prompt': template.prompt_text(turns) if IDS in refused else ids, **content}

    return make


def _drawn(
    answer: Answer, template: Template, turns: Sequence[str], prompt: int, sample: int, need_log_probs: bool
) -> Drawn:
    ids, log_probs = answer.ids, answer.log_probs
    if answer.prompt_ids is not None and answer.prompt_ids != template.prompt(turns):
        if need_log_probs:
            raise UserError(
                f'prompt {prompt}: the server makes other ids of it than the policy; serve the policy with its own '
                'tokenizer and chat template, or use --server_api completions'
            )
        ids = log_probs = None  # of another vocabulary, or of another prompt
    text = answer.text.strip() if ids is None else template.text(ids)
    return Drawn(prompt, sample, text, ids, log_probs, answer.is_finished)
