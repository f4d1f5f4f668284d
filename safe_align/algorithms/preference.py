"""Stage: preference learning from fixed data, DPO and its kin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safe_align.config import UserError, arg, run
from safe_align.fields import SupervisedFields

if TYPE_CHECKING:
    from safe_align.datasets.mixture import Mixture
    from safe_align.engine import Placement
    from safe_align.logger import Logger

ROWS = {'pairs': 'preference', 'chosen': 'supervised'}  # what is read for a loss of each kind


def describe_losses() -> Iterator[str]:
    """The lines of `--help` that tell of the losses."""
    from safe_align.losses import listing

    for name, first, needs, options in listing():
        yield f'\n  {name}: {first}\n      {needs}' + (f'; {options}' if options else '')


@dataclass(kw_only=True, frozen=True)
class PreferenceConfig(SupervisedFields):
    """Train a policy on preferences, by a loss of one's choice."""

    loss: str = arg('dpo', 'preference loss', listed=describe_losses)
    loss_options: list[str] = arg([], "the loss's options, NAME=VALUE ...")
    nll_coeff: float = arg(0.0, 'adds this times -log pi(chosen) a token to the loss', low=0)
    ref_model_name_or_path: str | None = arg(None, 'reference (default: --model_name_or_path)')
    lr: float = arg(1e-6, 'highest learning rate', aliases=['learning_rate'], low=0)
    lr_warmup_ratio: float = arg(0.03, 'share of the steps that warm up', low=0, high=1)
    weight_decay: float = arg(0.05, 'of matrices; biases and norms do not decay', low=0)


def main(config: PreferenceConfig) -> int:
    """Train, and write a policy directory."""
    from safe_align.algorithms.preference_loss import PreferenceLoss
    from safe_align.algorithms.reference_log_probs import with_reference
    from safe_align.algorithms.supervised import Task, run_supervised
    from safe_align.losses import LOSSES, make_loss, needs_of
    from safe_align.models.loading import load_policy

    loss = make_loss(LOSSES, config.loss, config.loss_options)
    needs = needs_of(type(loss), config.loss)
    if needs.rows not in ROWS:
        raise UserError(f'--loss {config.loss}: learns from single answers, which this stage does not read yet')
    reference = config.ref_model_name_or_path or config.model_name_or_path
    if needs.reference and reference != config.model_name_or_path:
        check_reference(config, reference)

    def check(data: Mixture) -> None:
        check_rows(config.loss, needs.names, data)

    def prepare(data: Mixture, placement: Placement, logger: Logger) -> Mixture:
        if not needs.reference:
            return data
        budget = config.micro_batch_tokens
        return with_reference(data, reference, placement, budget, logger, config.trust_remote_code)

    def load(config: Any, _: Any) -> Any:
        return load_policy(config.model_name_or_path, trust_remote_code=config.trust_remote_code)

    function = PreferenceLoss(config.loss, loss, needs, config.nll_coeff)
    return run_supervised(
        config, Task('preference', 'policy', ROWS[needs.rows], load, function, prepare=prepare, check=check)
    )


def check_rows(loss: str, names: Sequence[str], data: Mixture) -> None:
    """Refuse rows that lack what the loss reads of them.

    Raises:
        UserError: it says what is missing.
    """
    if 'margin' in names and not any(part.fields['margin'].any() for part in data.parts):
        raise UserError(f'--loss {loss}: no row has a margin')
    for name in ('is_chosen_safe', 'is_rejected_safe'):
        if name in names and (unknown := sum(int((part.fields[name] < 0).sum()) for part in data.parts)):
            raise UserError(f'--loss {loss}: {unknown} rows do not say whether both answers are safe')


def check_reference(config: PreferenceConfig, reference: str) -> None:
    """Refuse a reference that cannot read what the policy reads, before anything is written.

    Raises:
        UserError: it is no policy, or has another tokenizer.
    """
    from safe_align.datasets.tokenized import fingerprint_of
    from safe_align.models.loading import check_kind, load_tokenizer

    flag, trusted = '--ref_model_name_or_path', config.trust_remote_code
    check_kind(reference, 'policy', flag, trusted)
    own, its = (
        load_tokenizer(config.model_name_or_path, '--model_name_or_path', trusted),
        load_tokenizer(reference, flag, trusted),
    )
    if fingerprint_of(own) != fingerprint_of(its):
        raise UserError(f'{flag} {reference}: its tokenizer does not match that of {config.model_name_or_path}')


if __name__ == '__main__':
    run(PreferenceConfig, main)
