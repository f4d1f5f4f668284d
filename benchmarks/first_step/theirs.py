"""One step of TRL's preference trainers, as they run it, on token ids that are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback
from trl.experimental import cpo, orpo

PARTS = {'DPO': trl, 'KTO': trl, 'CPO': cpo, 'ORPO': orpo}
LOGGED = {
    'loss': 'loss', 'chosen reward': 'rewards/chosen', 'rejected reward': 'rewards/rejected',
    'accuracy': 'rewards/accuracies', 'KL': 'kl',
}  # fmt: skip


class Pair(NamedTuple):
    """Token ids of a prompt and of two answers to it."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def trainer_of(
    name: str, options: dict[str, Any], models: list[str], rows: list[dict[str, Any]], tokenizer: Any, folder: Path
) -> Any:
    """The trainer of that name for one step in float32, with a learning rate of 0.

    Args:
        name: one of `PARTS`.
        options: of its config.
        models: the policy's directory, and the reference's.
        rows: in TRL's conversational form; the trainer reads them as it is made.
        tokenizer: of both models.
        folder: the trainer's, which stays empty.
    """
    policy, *reference = (AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32) for one in models)
    common = {
        'output_dir': str(folder / 'trl'), 'per_device_train_batch_size': 2 * len(rows), 'max_steps': 1,
        'logging_steps': 1, 'learning_rate': 0.0, 'weight_decay': 0.0, 'max_grad_norm': 0.0, 'report_to': 'none',
        'save_strategy': 'no', 'disable_tqdm': True, 'bf16': False, 'gradient_checkpointing': False, 'use_cpu': True,
        'max_length': 4096, 'remove_unused_columns': name in ('DPO', 'KTO'),
    }  # fmt: skip
    known = {'ref_model': reference[0]} if name in ('DPO', 'KTO') else {}
    part = PARTS[name]
    return getattr(part, f'{name}Trainer')(
        model=policy, args=getattr(part, f'{name}Config')(**common | options), train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer, **known,
    )  # fmt: skip


class GradientNorm(TrainerCallback):
    """The gradient's norm in float64: the one that is logged adds up long vectors in float32, to 4 digits on a CPU."""

    value = 0.0

    def on_pre_optimizer_step(self, *given: Any, **named: Any) -> None:
        """See `TrainerCallback`."""
        gradients = [p.grad for p in named['model'].parameters() if p.grad is not None]
        self.value = sum(one.double().square().sum().item() for one in gradients) ** 0.5


def first_step(name: str, trainer: Any, pairs: list[Pair]) -> dict[str, float]:
    """What the trainer logs of one step on these pairs."""
    form = {'DPO': _as_it_is, 'KTO': _answers}.get(name, _labelled)
    trainer.train_dataset = Dataset.from_list(form(pairs))
    trainer.remove_callback(PrinterCallback)
    norm = GradientNorm()
    trainer.add_callback(norm)
    trainer.train()
    logged = trainer.state.log_history[0]
    found = {what: logged[key] for what, key in LOGGED.items() if key in logged}
    return found | {'gradient norm': norm.value}


def mismatched(answers: list[list[int]]) -> list[list[int]]:
    """To each prompt the answer to the one before it, from which KTO estimates how far the policy has moved."""
    return answers[-1:] + answers[:-1]


def _as_it_is(pairs: list[Pair]) -> list[dict[str, Any]]:
    return [{'prompt_ids': p.prompt, 'chosen_ids': p.chosen, 'rejected_ids': p.rejected} for p in pairs]


def _labelled(pairs: list[Pair]) -> list[dict[str, Any]]:
    rows = []
    for pair in pairs:
        row = {'prompt_input_ids': pair.prompt, 'prompt_attention_mask': [1] * len(pair.prompt)}
        for side, answer in (('chosen', pair.chosen), ('rejected', pair.rejected)):
            ids = pair.prompt + answer
            row[f'{side}_input_ids'], row[f'{side}_attention_mask'] = ids, [1] * len(ids)
            row[f'{side}_labels'] = [-100] * len(pair.prompt) + answer
        rows.append(row)
    return rows


def _answers(pairs: list[Pair]) -> list[dict[str, Any]]:
    prompts = [p.prompt for p in pairs] * 2
    answers = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    columns = zip(prompts, answers, mismatched(answers), strict=True)
    return [
        {'prompt_ids': prompt, 'completion_ids': answer, 'KL_completion_ids': other, 'label': n < len(pairs)}
        for n, (prompt, answer, other) in enumerate(columns)
    ]
