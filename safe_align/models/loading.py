"""Opening model directories and hub names; what is not the model asked for is refused in one line."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import logging as transformers_logging

from safe_align import attention
from safe_align.config import UserError
from safe_align.functions import is_function
from safe_align.models import adapters
from safe_align.models.quantized import options_4bit, run_as_linear
from safe_align.models.record import ADAPTER, adapter_of, base_of, record_of
from safe_align.models.unshared import write_out
from safe_align.ownership import check_base

SCORES = ('ForScore', 'ForSequenceClassification')  # how classes of score models end


def quiet() -> None:
    """Keep the loading bars and notices of `transformers` from the console; warnings stay."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger('DeepSpeed').setLevel(logging.ERROR)


def check_place(name_or_path: str, flag: str) -> None:
    """Refuse what cannot be a model: a function, a path that is not there, a folder without a config.

    Raises:
        UserError: it names the flag and what was found.
    """
    if is_function(name_or_path):
        raise UserError(f'{flag} {name_or_path}: a function, where a model was expected')
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        base = base_of(name_or_path)
        if base is None and not (path / 'config.json').is_file():
            unfinished = ' (the run that writes it has not ended)' if (path / 'arguments.json').is_file() else ''
            raise UserError(f'{flag} {name_or_path}: not a model directory: no config.json{unfinished}')
        if (path / '.lock').is_file() and not (path / 'manifest.json').is_file():
            raise UserError(f'{flag} {name_or_path}: the run that writes it has not ended')
        if not [*path.glob('*.safetensors'), *path.glob('*.bin')]:
            file = 'config.json' if base is None else ADAPTER
            raise UserError(f'{flag} {name_or_path}: a checkpoint with a missing file: no weights beside {file}')
        if base is not None:
            _check_base_place(name_or_path, base, flag)
    elif path.exists():
        raise UserError(f'{flag} {name_or_path}: a file, where a model directory was expected')
    elif (
        name_or_path.startswith(('.', '/', '~'))
        or name_or_path.count('/') > 1
        or ('/' in name_or_path and path.parent.is_dir())
    ):
        raise UserError(f'{flag} {name_or_path}: no such directory')


def _check_base_place(name_or_path: str, base: str, flag: str) -> None:
    if importlib.util.find_spec('peft') is None:
        raise UserError(f"{flag} {name_or_path}: an adapter, which needs peft; pip install 'safe_align[lora]'")
    if base_of(base) is not None:
        raise UserError(f'{flag} {name_or_path}: its base {base} is an adapter too, where a whole model was expected')
    check_place(base, f'{flag} {name_or_path}: its base')


def config_of(name_or_path: str, flag: str, trust_remote_code: bool = False) -> dict[str, Any]:
    """The `config.json` of a model; of an adapter that of its base, with the architecture that it makes of it.

    Raises:
        UserError: it cannot be read.
    """
    check_place(name_or_path, flag)
    if base := base_of(name_or_path):
        config = config_of(base, f'{flag} {name_or_path}: its base', trust_remote_code)
        makes_score = (adapter_of(name_or_path) or {}).get('task_type') == 'SEQ_CLS'
        if makes_score and not architecture_of(config).endswith(SCORES):
            config['architectures'] = [f'{config.get("model_type")}ForSequenceClassification']
        return config
    path = Path(name_or_path).expanduser() / 'config.json'
    try:
        if path.is_file():
            return dict(json.loads(path.read_text(encoding='utf-8')))
        return AutoConfig.from_pretrained(name_or_path, trust_remote_code=trust_remote_code).to_dict()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{flag} {name_or_path}: cannot be opened: {_first_line(error)}') from error


def architecture_of(config: dict[str, Any]) -> str:
    """The class that a config names, or ''."""
    return str((config.get('architectures') or [''])[0])


def is_score_model(name_or_path: str, flag: str, trust_remote_code: bool = False) -> bool:
    """Whether it has a score head, going by its config."""
    return architecture_of(config_of(name_or_path, flag, trust_remote_code)).endswith(SCORES)


def check_kind(name_or_path: str, kind: str, flag: str, trust_remote_code: bool = False) -> None:
    """Refuse a model that is no policy, reward or cost model where one is asked for, before its weights are read.

    Raises:
        UserError: its record, or its config, says that it is something else.
    """
    config = config_of(name_or_path, flag, trust_remote_code)
    architecture = architecture_of(config)
    told = (record_of(name_or_path) or {}).get('kind') or config.get('score_type')
    if told in ('policy', 'reward', 'cost') and told != kind:
        raise UserError(f'{flag} {name_or_path}: a {told} model, where a {kind} model was expected')
    if architecture.endswith(SCORES) != (kind != 'policy'):
        raise UserError(f'{flag} {name_or_path}: {architecture}, where a {kind} model was expected')


def check_length(name_or_path: str, max_length: int, trust_remote_code: bool = False, ends: bool = False) -> None:
    """Refuse sequences that a table of positions does not reach; rotary positions have no end.

    With `ends`, a sequence that was cut off gets a token more, which ends it.

    Raises:
        UserError: it says how far the table goes.
    """
    try:
        body = place(base_of(name_or_path) or name_or_path)
        config = AutoConfig.from_pretrained(body, trust_remote_code=trust_remote_code).get_text_config()
    except Exception:
        return  # what is wrong with it is told where it is opened
    table = getattr(config, 'max_position_embeddings', None)
    is_endless = getattr(config, 'rope_parameters', None) or getattr(config, 'alibi', False)
    if table and not is_endless and max_length + ends > table:
        more = ', and what is cut off is scored with a token more' if ends else ''
        raise UserError(f'--max_length {max_length}: {name_or_path} has positions for {table} tokens{more}')


def place(name_or_path: str) -> str:
    """What `transformers` calls it: `~` expanded."""
    return str(Path(name_or_path).expanduser()) if name_or_path.startswith('~') else name_or_path


def load_tokenizer(name_or_path: str, flag: str, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model.

    Raises:
        UserError: there is none.
    """
    check_place(name_or_path, flag)
    base = base_of(name_or_path)
    if base and not (Path(place(name_or_path)) / 'tokenizer_config.json').is_file():
        return load_tokenizer(base, f'{flag} {name_or_path}: its base', trust_remote_code)
    try:
        return AutoTokenizer.from_pretrained(place(name_or_path), trust_remote_code=trust_remote_code)
    except Exception as error:  # damaged files raise what they like
        raise UserError(f'{flag} {name_or_path}: no tokenizer: {_first_line(error)}') from error


def from_pretrained(
    auto: Any, name_or_path: str, flag: str, *, new: Collection[str] = (), merge: bool = True, in_4bit: bool = False,
    **options: Any,
) -> PreTrainedModel:  # fmt: skip
    """`auto.from_pretrained` with our attention where the model can take it, in float32.

    Args:
        auto: a class of `transformers`.
        name_or_path: a directory or hub name.
        flag: the option it came from, for messages.
        new: weights that need not be among those saved.
        merge: add an adapter to the weights of its base; else its layers stay apart.
        in_4bit: hold the linear layers in 4 bits; where an adapter is merged, with the values that these stand for.
        options: handed down.

    Raises:
        UserError: it cannot be opened, or lacks weights, or is an adapter of what its base was.
    """
    check_place(name_or_path, flag)
    check_base(flag, name_or_path)
    quiet()
    base, here = base_of(name_or_path), Path(place(name_or_path))
    body = place(base or name_or_path)
    options = {'dtype': torch.float32, **options, **({'quantization_config': options_4bit()} if in_4bit else {})}
    try:
        config = AutoConfig.from_pretrained(body, trust_remote_code=options.get('trust_remote_code'))
        model, found = auto.from_pretrained(body, output_loading_info=True, **options)
        brought = adapters.names_in(here) if base else set()
        if in_4bit:
            model.dequantize(torch.float32) if base and merge else run_as_linear(model)
        model = adapters.put_on(model, here, merge) if base else model
    except Exception as error:  # damaged files raise what they like
        raise UserError(f'{flag} {name_or_path}: cannot be opened: {_first_line(error)}') from error
    missing = sorted(set(found['missing_keys']).difference(new, brought))
    if missing:  # `transformers` would draw them at random
        more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
        raise UserError(f'{flag} {name_or_path}: weights are missing: {missing[0]}{more}')
    if _fits_ours(model, config):
        attention.register()
        model.set_attn_implementation(attention.NAME)
    else:
        write_out(model)
    return model


def load_policy(
    name_or_path: str, flag: str = '--model_name_or_path', trust_remote_code: bool = False, in_4bit: bool = False
) -> nn.Module:
    """A causal language model in float32, but for its linear layers with `in_4bit`.

    Raises:
        UserError: it is not there, or is a score model.
    """
    check_kind(name_or_path, 'policy', flag, trust_remote_code)
    model = from_pretrained(
        AutoModelForCausalLM, name_or_path, flag, in_4bit=in_4bit, trust_remote_code=trust_remote_code
    )
    if 'logits_to_keep' not in inspect.signature(model.forward).parameters:
        raise UserError(f'{flag} {name_or_path}: {type(model).__name__} cannot compute logits at chosen positions')
    return model


def _fits_ours(model: PreTrainedModel, config: Any) -> bool:
    """Whether attention is plain and causal: no sliding window in use, no soft cap, arguments handed down."""
    text = config.get_text_config()
    window = getattr(text, 'sliding_window', None) if getattr(text, 'use_sliding_window', True) else None
    layers = set(getattr(text, 'layer_types', None) or ['full_attention'])
    soft_cap = getattr(text, 'attn_logit_softcapping', None)
    return bool(model._supports_attention_backend) and not window and not soft_cap and layers == {'full_attention'}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
