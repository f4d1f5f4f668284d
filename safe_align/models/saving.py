"""What a stage leaves of the model that it trained: the model, its adapter, or the model with the adapter merged."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from safe_align import distributed
from safe_align.config import UserError
from safe_align.datasets.packing import Packed
from safe_align.engine import Engine, Placement
from safe_align.handoff import Run
from safe_align.models.adapters import write_adapter
from safe_align.models.loading import from_pretrained
from safe_align.models.policy import bare, save_model, weights_of
from safe_align.models.score import ScoreModel
from safe_align.ownership import APART

AGREEMENT = 1e-3  # of the largest logit; float32 rounds a hundred times less


@dataclass(frozen=True)
class Ending:
    """How the result of a run is written.

    Args:
        run: its record names the base of an adapter.
        config: `LoraFields` and `--save_16bit`.
        option: which names the model that the run started from.
        sample: rows on which a merged model is compared with the one that was trained.
    """

    run: Run
    config: Any
    option: str
    sample: Packed

    def write(self, engine: Engine, tokenizer: Any, directory: Path) -> None:
        """Write the model, or its adapter.

        Raises:
            UserError: no step moved a weight, or one is not finite, or a merged model is not what was trained.
        """
        if engine.options and not engine.updates:
            raise UserError(
                'no step moved the weights, so they are not kept: there was nothing to learn from, such as pairs that '
                'were all dropped, or no gradient was finite'
            )
        config, half = self.config, self.config.save_16bit
        if not config.lora_r:
            save_model(engine, tokenizer, half, directory)
        elif config.merge_lora:
            self._write_adapter(engine, tokenizer, False, directory / APART)
            distributed.on_main(lambda: self._merge(isinstance(engine.module, ScoreModel), tokenizer, directory))
        else:
            self._write_adapter(engine, tokenizer, half, directory)
            self.run.record['base'] = self.run.parents.get(self.option)  # which the first process knows

    def _write_adapter(self, engine: Engine, tokenizer: Any, half: bool, directory: Path) -> None:
        weights = weights_of(engine, half, frozen=False)
        if distributed.is_main():
            directory.mkdir(exist_ok=True)
            write_adapter(bare(engine.module), weights, getattr(self.config, self.option), directory)
            tokenizer.save_pretrained(directory)

    def _merge(self, is_score: bool, tokenizer: Any, directory: Path) -> None:
        """Write the model that the adapter makes of its base, if it says the same as both of them apart.

        Both are opened from what is on disk, in float32 whatever the run computed in, so what is compared is what a
        later stage would open. If they disagree, the adapter is left beside the checkpoints: training is not lost.
        What was trained on a base in 4 bits is merged with the values that these stand for.
        """
        apart = _outputs(self._open(directory / APART, is_score, merge=False), self.sample)
        model = self._open(directory / APART, is_score, merge=True)
        error = float((_outputs(model, self.sample) - apart).abs().max() / apart.abs().max().clamp(min=1e-12))
        if not error <= AGREEMENT:
            place = self.run.directory / APART
            shutil.rmtree(place, ignore_errors=True)
            shutil.move(directory / APART, place)
            raise UserError(
                f'--merge_lora: the merged model differs from base and adapter apart by {error:.2g} of the largest '
                f'output, so it is not written; the adapter is in {place}'
            )
        shutil.rmtree(directory / APART)
        if is_score:
            bare(model).config.pad_token_id = tokenizer.pad_token_id  # before which a score is read, see `pad_apart`
        save_model(Engine(model, Placement()), tokenizer, self.config.save_16bit, directory)

    def _open(self, directory: Path, is_score: bool, merge: bool) -> Any:
        options: dict[str, Any] = {'in_4bit': self.config.load_in_4bit, 'merge': merge}
        options['trust_remote_code'] = self.config.trust_remote_code
        if not is_score:
            return from_pretrained(AutoModelForCausalLM, str(directory), '--merge_lora', **options).eval()
        auto = AutoModelForSequenceClassification
        return ScoreModel(from_pretrained(auto, str(directory), '--merge_lora', num_labels=1, **options)).eval()


@torch.no_grad()
def _outputs(model: Any, batch: Packed) -> Tensor:
    """Logits or scores at all positions, as training computed them."""
    batch = batch.to(next(model.parameters()).device)
    if isinstance(model, ScoreModel):
        where = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        return model(batch.tokens, batch.positions, batch.layout, where).cpu()
    layout = batch.layout
    return model(input_ids=batch.tokens, position_ids=batch.positions, layout=layout, use_cache=False).logits.cpu()
