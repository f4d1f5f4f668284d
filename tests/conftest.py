"""What all tests share: the starter data, tiny models in Hugging Face directories, and stages run as real processes.

A made model is kept in the system's temporary folder under a hash of all that it depends on, so that parallel workers
and later sessions read what the first one made.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(WANDB_MODE='disabled', TOKENIZERS_PARALLELISM='false', OMP_NUM_THREADS='1')

import pytest
import torch

ROOT = Path(__file__).parents[1]
STARTER = ROOT / 'examples/starter'
SPECIAL = {'bos_token': '<s>', 'eos_token': '<|im_end|>', 'pad_token': '<pad>', 'unk_token': '<unk>'}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY, LENGTH = 1000, 512
STEPS = 150  # of training, about 10 seconds; counted, so that the same weights come out each time
LLAMA = {
    'hidden_size': 64, 'intermediate_size': 192, 'num_hidden_layers': 3, 'num_attention_heads': 4,
    'num_key_value_heads': 2, 'max_position_embeddings': LENGTH, 'tie_word_embeddings': True,
}  # fmt: skip
GPT2 = {
    'n_embd': 64,
    'n_layer': 2,
    'n_head': 4,
    'n_positions': LENGTH,
    'resid_pdrop': 0,
    'embd_pdrop': 0,
    'attn_pdrop': 0,
}
OPT = {
    'hidden_size': 64, 'word_embed_proj_dim': 64, 'ffn_dim': 128, 'num_hidden_layers': 2, 'num_attention_heads': 4,
    'max_position_embeddings': LENGTH, 'dropout': 0,
}  # fmt: skip
SMALL = {**LLAMA, 'intermediate_size': 128, 'num_hidden_layers': 2, 'tie_word_embeddings': False}
FAMILIES = {
    'llama': SMALL, 'qwen2': SMALL, 'mistral': {**SMALL, 'sliding_window': None}, 'gemma2': {**SMALL, 'head_dim': 16},
    'gpt2': GPT2, 'opt': OPT, 'phi': {**SMALL, 'num_key_value_heads': 4},
}  # fmt: skip


@pytest.fixture(scope='session', autouse=True)
def quiet_and_apart(tmp_path_factory):
    """No more than one core for torch, and no trace in the user's own cache."""
    torch.set_num_threads(1)
    os.environ['SAFE_ALIGN_CACHE'] = str(tmp_path_factory.mktemp('safe_align_cache'))


@pytest.fixture
def no_plugins(monkeypatch):
    """The test imports its plug-ins itself, as a process of its own would, and no other test knows them."""
    from safe_align import functions, plugins

    def imported() -> list[str]:
        return [name for name in sys.modules if name.startswith('safe_align_plugin_')]

    monkeypatch.setattr(functions, '_registry', {})
    for table in ('_own', '_named'):
        monkeypatch.setattr(plugins, table, {})
    for name in imported():
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in imported():  # what it has registered goes with it
        del sys.modules[name]


@pytest.fixture(scope='session')
def starter() -> Path:
    """The folder with the starter set's train.jsonl and test.jsonl."""
    return STARTER


@pytest.fixture(scope='session')
def tiny() -> Path:
    """A Llama of 0.2 million parameters, trained for some seconds on the starter set, with its tokenizer."""
    return shared('tiny', _make_tiny)


@pytest.fixture(scope='session')
def real_server(stages, tiny):
    """The URL of a server of other people that has `tiny`; it starts in some seconds, once for all who ask for it."""
    from servers import served

    with served(stages, tiny) as url:
        yield url


@pytest.fixture(scope='session')
def family(tiny):
    """`family('gpt2')` is the folder of an untrained tiny model of that family, with the tokenizer of `tiny`."""

    def make(name: str, **changes) -> Path:
        options = {**FAMILIES[name], **changes}
        key = hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=4).hexdigest()
        return shared(f'{name}-{key}', lambda folder: _make_random(name, options, tiny, folder))

    return make


@pytest.fixture(scope='session')
def stages(tmp_path_factory):
    """Stages as processes that fork from one which has imported all that they import."""
    from forks import Forks

    server = Forks(tmp_path_factory.mktemp('stage_logs'))
    yield server
    server.close()


@pytest.fixture(scope='session')
def run_stage():
    """`run_stage('safe_align.finetune', '--lr', 1e-3)` runs `python -m` as a process; its text output is captured."""

    def run(module: str, *args, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, '-m', module, *map(str, args)]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment}
        )  # fmt: skip

    return run


def shared(name: str, fill) -> Path:
    """The folder that `fill` makes, once for all processes: it is whole or it is not there."""
    digest = hashlib.blake2b(Path(__file__).read_bytes() + (STARTER / 'train.jsonl').read_bytes(), digest_size=8)
    home = Path(tempfile.gettempdir()) / f'safe_align-tests-{os.getuid()}-{digest.hexdigest()}'
    home.mkdir(exist_ok=True)
    folder = home / name
    with _locked(home / f'{name}.lock'):
        if not folder.is_dir():
            part = home / f'{name}.partial'
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            fill(part)
            part.rename(folder)
    return folder


@contextlib.contextmanager
def _locked(path: Path):
    with path.open('w') as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _starter_pairs() -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (STARTER / 'train.jsonl').read_text(encoding='utf-8').splitlines()]
    return [(row['prompt'], row[key]) for row in rows for key in ('response_0', 'response_1')]


def _make_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[*SPECIAL.values(), '<|im_start|>'],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([text for pair in _starter_pairs() for text in pair], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **SPECIAL, extra_special_tokens=['<|im_start|>'],
        model_max_length=LENGTH, chat_template=CHATML, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _ids_of(tokenizer) -> dict[str, int]:
    return {f'{name}_token_id': getattr(tokenizer, f'{name}_token_id') for name in ('bos', 'eos', 'pad')}


def _make_tiny(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _make_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **LLAMA, **_ids_of(tokenizer)))
    _learn(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _learn(model, tokenizer) -> None:
    """Plain right-padded batches and `transformers`' own loss, so that nothing under test has a hand in it."""
    texts = []
    for prompt, answer in _starter_pairs():
        messages = [{'role': 'user', 'content': prompt}, {'role': 'assistant', 'content': answer}]
        texts.append(tokenizer.apply_chat_template(messages, tokenize=False).rstrip('\n'))
    rows = sorted(tokenizer(texts, add_special_tokens=False)['input_ids'], key=len)
    batches = [rows[start : start + 16] for start in range(0, len(rows), 16)]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        batch = batches[int(torch.randint(len(batches), (1,), generator=generator))]
        width = len(batch[-1])
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in batch])
        for group in optimizer.param_groups:
            group['lr'] = 6e-3 * (1 - step / STEPS)
        labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _make_random(name: str, options: dict, tiny: Path, folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, vocab_size=len(tokenizer), **options, **_ids_of(tokenizer))
    model = AutoModelForCausalLM.from_config(config, attn_implementation='eager')
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)  # less, and all tokens are alike
        else:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
