"""Groups of options that stages share, under safe-rlhf's names, and what they mean for this process."""

from __future__ import annotations

import importlib.util
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, Any, Literal

from safe_align.config import UserError, arg
from safe_align.datasets.grammar import parse_dataset
from safe_align.datasets.registry import RawDataset

if TYPE_CHECKING:
    from safe_align.engine import Placement
    from safe_align.models.adapters import LoraOptions

Scheduler = Literal[
    'linear', 'cosine', 'cosine_with_restarts', 'polynomial', 'constant', 'constant_with_warmup'
]  # fmt: skip
DATASETS = 'NAME[:PROPORTION[:PATH]] ...'


def _known(spec: str) -> None:
    """Refuse a spec that is malformed, or of an unknown data set.

    Raises:
        UserError: it says which.
    """
    RawDataset.find(parse_dataset(spec)[0])


def datasets_arg(default: Any, help: str, **options: Any) -> Any:
    """A flag that takes data sets."""
    return arg(default, f'{help}: {DATASETS}', check=_known, listed=RawDataset.names, **options)


@dataclass(kw_only=True, frozen=True)
class RunFields:
    """Where a run goes and how it is told."""

    output_dir: str = arg(help='directory that this stage writes')
    overwrite: bool = arg(False, 'replace another run in --output_dir')
    seed: int = arg(42, 'fixes everything that is drawn', low=0, high=2**63 - 1)
    log_type: Literal['wandb', 'tensorboard', 'none'] = arg(
        'wandb', 'tracker beside metrics.jsonl; wandb stays offline without a key'
    )
    log_dir: str | None = arg(None, "the tracker's directory (--output_dir if absent)")
    log_project: str | None = arg(None, "wandb's project")
    log_run_name: str | None = arg(None, "the tracker's name of the run")
    plugin: list[str] = arg([], "files or modules with data sets, score functions or bounds of one's own")
    local_rank: int = arg(-1, "set by DeepSpeed's launcher")


@dataclass(kw_only=True, frozen=True)
class PlacementFields:
    """Precision and parallelism."""

    bf16: bool | None = arg(None, 'bfloat16 matrix products (default: where the processor has them)')
    fp16: bool = arg(False, 'float16 matrix products, on GPUs under DeepSpeed')
    tf32: bool | None = arg(None, 'TensorFloat-32 matrix products on GPUs')
    zero_stage: Literal['0', '1', '2', '3'] = arg('0', "DeepSpeed's ZeRO stage; several processes with 0 run as 1")
    offload: Literal['none', 'parameter', 'optimizer', 'all'] = arg('none', 'what DeepSpeed keeps in CPU memory')
    micro_batch_tokens: int = arg(
        4096, 'tokens of a micro-batch on one process; memory depends on it, results do not', low=1
    )
    trust_remote_code: bool = arg(False, 'run code that comes with a model')

    def place(self) -> Placement:
        """Join the other processes, and say where models run.

        Raises:
            UserError: this machine cannot do what is asked.
        """
        import torch

        from safe_align import distributed
        from safe_align.engine import Placement, can_bf16

        distributed.initialise()
        if self.tf32 is not None and torch.cuda.is_available():
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        bf16 = can_bf16() and not self.fp16 if self.bf16 is None else self.bf16
        placement = Placement(bf16, self.fp16, int(self.zero_stage), self.offload)
        placement.check()
        torch.manual_seed(getattr(self, 'seed', 0))
        return placement


@dataclass(kw_only=True, frozen=True)
class TemplateFields:
    """How conversations are written."""

    template: Literal['auto', 'chat', 'safe-rlhf'] = arg(
        'auto', "the tokenizer's chat template, which stages save as they trained on it; or safe-rlhf's format"
    )


@dataclass(kw_only=True, frozen=True)
class DataFields(TemplateFields):
    """Data and how it is read."""

    train_datasets: list[str] = datasets_arg(MISSING, 'data sets to train on', aliases=['datasets'])
    eval_datasets: list[str] | None = datasets_arg(None, 'held-out data sets')
    max_length: int = arg(512, 'tokens of prompt and response together', low=2)
    strict_data: bool = arg(False, 'the first row that cannot be used is an error')


@dataclass(kw_only=True, frozen=True)
class LoopFields:
    """When things happen, in optimizer steps."""

    epochs: int = arg(1, 'passes over the data', low=1)
    per_device_train_batch_size: int = arg(16, 'samples of a step on one process, before accumulation', low=1)
    per_device_eval_batch_size: int = arg(16, 'samples of an evaluation batch on one process', low=1)
    gradient_accumulation_steps: int = arg(1, 'multiplies the samples of a step', low=1)
    max_grad_norm: float = arg(1.0, "the gradient's norm is clipped to it (0: never)", low=0)
    save_interval: int | None = arg(None, 'steps between checkpoints (default: when told to end)', low=1)
    save_16bit: bool = arg(False, 'write bfloat16 weights')


@dataclass(kw_only=True, frozen=True)
class LoraFields:
    """Low-rank adapters on frozen models, in place of models trained whole."""

    lora_r: int = arg(0, 'rank of an adapter that is trained in place of the model (0: all of the model is)', low=0)
    lora_alpha: int | None = arg(None, 'what it adds is multiplied by lora_alpha / lora_r (default: 2 lora_r)', low=0)
    lora_dropout: float | None = arg(
        None, 'share of its inputs that is dropped, where a stage trains with dropout (default: 0)', low=0, high=1
    )
    lora_target_modules: list[str] | None = arg(
        None, 'names of the linear layers that it is on (default: all but the output head)'
    )
    load_in_4bit: bool = arg(False, 'hold the frozen models that have an adapter in 4 bits, by bitsandbytes')
    merge_lora: bool = arg(False, 'write a model with the adapter added to its weights, not the adapter')

    def check_lora(self) -> None:
        """Check what these fields say together.

        Raises:
            UserError: one of them has no --lora_r, or a package is not there.
        """
        names = ('lora_alpha', 'lora_dropout', 'lora_target_modules', 'load_in_4bit', 'merge_lora')
        given = [name for name in names if getattr(self, name) is not None and getattr(self, name) is not False]
        if given and not self.lora_r:
            raise UserError(f'--{given[0]}: needs --lora_r, the rank of the adapter')
        if self.lora_r and importlib.util.find_spec('peft') is None:
            raise UserError(f"--lora_r {self.lora_r}: needs peft; pip install 'safe_align[lora]'")
        if self.load_in_4bit and importlib.util.find_spec('bitsandbytes') is None:
            raise UserError("--load_in_4bit: needs bitsandbytes; pip install 'safe_align[qlora]'")

    def lora(self) -> LoraOptions | None:
        """The adapter that is asked for, if one is."""
        from safe_align.models.adapters import LoraOptions

        if not self.lora_r:
            return None
        alpha = 2 * self.lora_r if self.lora_alpha is None else self.lora_alpha
        return LoraOptions(self.lora_r, alpha, self.lora_dropout or 0.0, tuple(self.lora_target_modules or ()))


@dataclass(kw_only=True, frozen=True)
class ModelFields:
    """The model that is trained, and its optimizer."""

    model_name_or_path: str = arg(help='model to start from: a directory, or a name on the hub')
    lr: float = arg(2e-5, 'highest learning rate', aliases=['learning_rate'], low=0)
    lr_scheduler_type: Scheduler = arg('cosine', 'course of the learning rate')
    lr_warmup_ratio: float = arg(0.0, 'share of the steps that warm up', low=0, high=1)
    weight_decay: float = arg(1e-6, 'of matrices; biases and norms do not decay', low=0)
    gradient_checkpointing: bool = arg(False, 'compute activations again in the backward pass')


@dataclass(kw_only=True, frozen=True)
class SupervisedFields(ModelFields, RunFields, PlacementFields, DataFields, LoopFields, LoraFields):
    """A model trained on fixed data."""

    need_eval: bool = arg(False, 'evaluate; needs --eval_datasets or --eval_split_ratio')
    eval_split_ratio: float | None = arg(None, 'share of the prompts that is held out', low=0, high=1)
    eval_strategy: Literal['epoch', 'steps'] = arg('epoch', 'when to evaluate')
    eval_interval: int = arg(1_000_000, 'steps between evaluations with --eval_strategy steps', low=1)

    def __post_init__(self) -> None:
        """Check what fields say together.

        Raises:
            UserError: two of them contradict each other.
        """
        self.check_lora()
        if self.eval_datasets and self.eval_split_ratio is not None:
            raise UserError('--eval_datasets and --eval_split_ratio: choose one')
        if self.need_eval and not self.eval_datasets and not self.eval_split_ratio:
            raise UserError('--need_eval: give --eval_datasets or --eval_split_ratio')
