"""A packed row gives what padded batches of plain `transformers` give, whatever lies beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from safe_align import attention
from safe_align.datasets.packing import pack
from safe_align.datasets.prefixes import LEAST
from safe_align.engine import Engine, Placement
from safe_align.models.loading import load_policy
from safe_align.models.policy import enable_checkpointing, response_logits

LENGTHS = [5, 19, 1, 12, 18, 7, 2]
OURS = ['llama', 'gpt2', 'qwen2', 'mistral', 'opt', 'phi']


def _sequences(lengths: list[int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 1000, (length,), generator=generator) for length in lengths]


def _related(seed: int = 0) -> list[torch.Tensor]:
    """Sequences that begin alike in a tree three deep, beside some that share nothing."""
    generator = torch.Generator().manual_seed(seed)
    some = lambda n: torch.randint(5, 1000, (n,), generator=generator)  # noqa: E731
    root, left, right = some(9), some(LEAST + 3), some(LEAST)
    tails = [[root, left, some(4)], [root, some(1)], [root, right, some(12)], [some(7)], [root, left, some(19)]]
    return [torch.cat(parts) for parts in (*tails, [root, right, some(2)])]


def _packed(model, sequences: list[torch.Tensor]) -> list[torch.Tensor]:
    """Logits of each sequence, (length, V), from one flat row."""
    batch = pack([(ids.numpy(), np.zeros(len(ids), bool)) for ids in sequences])
    output = model(input_ids=batch.tokens, position_ids=batch.positions, layout=batch.layout, use_cache=False)
    return [output.logits[0, batch.places(n)] for n in range(len(sequences))]


def _padded(model, sequences: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same from a right-padded batch."""
    tokens = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=3)
    lengths = torch.tensor([len(ids) for ids in sequences])
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    return [row[: len(ids)] for row, ids in zip(logits, sequences, strict=True)]


def _loss(logits: list[torch.Tensor]) -> torch.Tensor:
    """A number that every logit has its own share in."""
    generator = torch.Generator().manual_seed(1)
    return sum((row * torch.randn(row.shape[1], generator=generator)).tanh().sum() for row in logits) / 100


def _gradients(model, logits: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    _loss(logits).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _close(ours: torch.Tensor, expected: torch.Tensor, scale: float | None = None, eps: float = 1e-6) -> None:
    scale = float(expected.detach().abs().max()) if scale is None else scale
    torch.testing.assert_close(ours, expected, rtol=0, atol=eps * max(scale, 1.0))


def _assert_same(path, implementation: str) -> None:
    ours = load_policy(str(path)).eval()
    theirs = AutoModelForCausalLM.from_pretrained(path, attn_implementation=implementation).eval()
    eps = 1e-6 if implementation == 'sdpa' else 2e-6  # eager rounds between its steps
    for sequences in (_sequences(LENGTHS), _related()):
        _assert_equal(ours, theirs, sequences, eps)


def _assert_equal(ours, theirs, sequences: list[torch.Tensor], eps: float) -> None:
    results, expected = _packed(ours, sequences), _padded(theirs, sequences)
    for one, other in zip(results, expected, strict=True):
        _close(one, other, eps=eps)
    gradients, exact = _gradients(ours, results), _gradients(theirs, expected)
    assert gradients.keys() == exact.keys()
    largest = max(float(gradient.abs().max()) for gradient in exact.values())
    for name, gradient in exact.items():
        _close(gradients[name], gradient, largest, eps)


@pytest.mark.parametrize('name', OURS)
@pytest.mark.parametrize('implementation', ['sdpa', 'eager'])
def test_outputs_and_gradients_equal_padded_runs(name, implementation, family):
    assert load_policy(str(family(name))).config._attn_implementation == attention.NAME
    _assert_same(family(name), implementation)


@pytest.mark.parametrize(('name', 'changes'), [('gemma2', {}), ('mistral', {'sliding_window': 6})])
def test_models_whose_attention_is_not_plain_keep_their_own_mask_and_equal_padded_runs(name, changes, family):
    path = family(name, **changes)
    assert load_policy(str(path)).config._attn_implementation != attention.NAME
    _assert_same(path, 'eager')


def test_a_sequence_does_not_depend_on_what_it_is_packed_with(tiny):
    model = load_policy(str(tiny)).eval()
    sequences = _sequences(LENGTHS)
    with torch.no_grad():
        alone = [_packed(model, [ids])[0] for ids in sequences]

        @settings(deadline=None, max_examples=15, derandomize=True)
        @given(st.permutations(range(len(LENGTHS))), st.integers(1, len(LENGTHS)))
        def check(order, count):
            for part in (order[:count], order[count:]):
                for n, logits in zip(part, _packed(model, [sequences[n] for n in part]) if part else [], strict=True):
                    _close(logits, alone[n])

        check()


def test_gradients_do_not_depend_on_the_order_of_sequences(tiny):
    model = load_policy(str(tiny)).eval()
    sequences = _sequences(LENGTHS)
    weight = model.model.layers[0].self_attn.q_proj.weight
    gradients = []
    for order in (range(7), (6, 2, 0, 5, 3, 4, 1)):
        logits = dict(zip(order, _packed(model, [sequences[n] for n in order]), strict=True))
        gradients.append(torch.autograd.grad(_loss([logits[n] for n in range(7)]), weight)[0])
    _close(*gradients)


def test_checkpointing_gives_the_same_gradient(family):
    gradients = []
    for checkpointing in (False, True):
        model = load_policy(str(family('llama'))).train()
        if checkpointing:
            enable_checkpointing(model)
        gradients.append(_gradients(model, _packed(model, _sequences(LENGTHS))))
    for name, gradient in gradients[0].items():
        _close(gradients[1][name], gradient)


@pytest.mark.parametrize('name', ['llama', 'gpt2', 'gemma2'])
def test_response_logits_are_those_before_each_response_token(name, family):
    model = load_policy(str(family(name)))
    sequences = _sequences([6, 9])
    flags = [np.arange(6) >= 4, np.arange(9) >= 5]
    batch = pack([(ids.numpy(), flag) for ids, flag in zip(sequences, flags, strict=True)])
    assert batch.targets.tolist() == [*sequences[0][4:].tolist(), *sequences[1][5:].tolist()]
    with torch.no_grad():
        whole = _packed(model, sequences)
        logits = response_logits(Engine(model, Placement()), batch)
        warm = response_logits(Engine(model, Placement()), batch, temperature=2.0)
    _close(logits, torch.cat([whole[0][3:5], whole[1][4:8]]))  # token 4 is drawn from the logits at 3
    _close(warm, logits / 2)


@pytest.mark.parametrize(('heads', 'groups'), [(9, 3), (4, 4), (4, 1)])
@pytest.mark.parametrize('past', [0, 5])
def test_whole_products_are_attention(heads, groups, past):
    """The processor's short path against PyTorch's own, in float32, with its gradients."""
    torch.manual_seed(0)
    q = torch.randn(3, 11, heads, 8, requires_grad=True)
    k, v = (torch.randn(3, past + 11, groups, 8, requires_grad=True) for _ in range(2))
    seen = torch.ones(3, 11, past + 11, dtype=torch.bool).tril(past)
    seen[1, :, : past // 2] = False  # a row that goes on from less
    bias = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    ours = attention._Whole.apply(q, k, v, bias, 0.3)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), seen[:, None], scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    weights = torch.randn_like(theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), (q, k, v)),
        torch.autograd.grad((theirs * weights).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('sequences', [_sequences(LENGTHS), _related()], ids=['apart', 'related'])
def test_bfloat16_takes_the_short_path_and_equals_the_long_one(sequences, tiny, monkeypatch):
    """Under autocast rotary embedding leaves float32 queries; they are attended to in the type of the values."""
    policy = load_policy(str(tiny)).eval()
    calls = []
    forward = attention._Whole.forward
    monkeypatch.setattr(attention._Whole, 'forward', lambda *args: calls.append(args[1].dtype) or forward(*args))
    with torch.autocast('cpu', torch.bfloat16):
        short = _packed(policy, sequences)
        assert set(calls) == {torch.bfloat16}
        monkeypatch.setattr(attention, 'SHORT', 0)
        calls.clear()
        long = _packed(policy, sequences)
        assert not calls
    exact = _packed(policy, sequences)
    error = (torch.cat(long) - torch.cat(exact)).abs().max()
    assert (torch.cat(short) - torch.cat(exact)).abs().max() < 2 * error + 0.01
    gradients = [_gradients(policy, logits) for logits in (short, long, exact)]
    for name, true in gradients[2].items():
        scale = float(true.norm()) + 1e-3
        assert (
            float((gradients[0][name] - true).norm()) / scale
            < 2 * float((gradients[1][name] - true).norm()) / scale + 0.01
        )
