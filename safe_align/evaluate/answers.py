"""Answers of a policy to held-out prompts, each prompt on one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safe_align import distributed
from safe_align.datasets.mixture import Mixture, build
from safe_align.engine import Engine, Placement
from safe_align.generation import Sampling, generate
from safe_align.handoff import Run
from safe_align.models.loading import load_policy
from safe_align.models.scorer import Conversation, Scorer
from safe_align.placing import make_engine
from safe_align.templates import Template

if TYPE_CHECKING:
    from safe_align.evaluate.fields import AnswerFields
    from safe_align.fields import PlacementFields


def held_out(config: AnswerFields, specs: list[str], template: Template) -> Mixture:
    """The prompts, each once, that leave room for an answer."""
    return build(
        specs, 'prompt', template, config.max_length - (config.max_new_tokens or 1),
        seed=config.seed, strict=config.strict_data, flag='--datasets',
    )  # fmt: skip


def share_of_this_process(prompts: Mixture) -> tuple[list[list[str]], list[int]]:
    """Turns and hashes of this process's prompts: each is on exactly one; none is repeated to fill a batch."""
    mine = slice(distributed.rank(), None, distributed.world_size())
    return prompts.turns()[mine], [int(key) for key in prompts.hashes[mine]]


def open_policy(config: PlacementFields, policy: tuple[str, str]) -> Engine:
    """A policy, by its path and the flag that gave it; each process has prompts of its own, so it is whole on each."""
    return make_engine(load_policy(*policy, config.trust_remote_code), Placement(bf16=config.place().bf16))


def answer(
    config: AnswerFields, run: Run, policy: tuple[str, str], template: Template, turns: Sequence[list[str]],
    keys: Sequence[int], *, what: str, num_samples: int = 1,
) -> list[Conversation]:  # fmt: skip
    """As `sample`, of a policy that is open as long as it answers."""
    engine = open_policy(config, policy)
    return sample(config, run, engine, template, turns, keys, what=what, num_samples=num_samples)


def sample(
    config: AnswerFields, run: Run, engine: Engine, template: Template, turns: Sequence[list[str]],
    keys: Sequence[int], *, what: str, num_samples: int = 1,
) -> list[Conversation]:  # fmt: skip
    """A policy's answers, ordered by prompt and sample.

    Args:
        config: how they are drawn.
        run: whose bar shows the progress.
        engine: the policy.
        template: its own.
        turns: the prompts.
        keys: what each prompt's random numbers depend on.
        what: the bar's name.
        num_samples: answers a prompt.
    """
    prompts = [template.prompt(one) for one in turns]
    most = config.max_new_tokens or max(1, config.max_length - min(map(len, prompts), default=0))
    sampling = Sampling(
        most, config.temperature, num_samples=num_samples, seed=config.seed, batch_size=config.generation_batch_size,
        backend=config.generation_backend, max_length=config.max_length,
    )  # fmt: skip
    with run.logger.progress(what, most * len(prompts) * num_samples) as seen, engine.placement.compute():
        responses = generate(engine.module, prompts, sampling, template.stop_ids, keys, seen)
    return [Conversation(turns[r.prompt], prompts[r.prompt], r.ids, template.text(r.ids)) for r in responses]


def score(run: Run, scorer: Scorer, conversations: Sequence[Conversation], what: str) -> list[float]:
    """Scores, under the run's bar with the name `what`."""
    with run.logger.progress(what, sum(one.num_tokens for one in conversations)) as seen:
        return scorer(conversations, seen).tolist()
