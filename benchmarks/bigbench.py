"""BIG-bench: scores beside those of the `bigbench` package, and questions a second beside one forward pass a choice.

python benchmarks/bigbench.py --tasks BIG-bench --reference FOLDER
python benchmarks/bigbench.py --tasks BIG-bench --model output/demo/SmolLM2-135M-Instruct [--questions 20]

The first reads every task.json below --tasks with both, asks one made-up model the same questions with 0 and 2 solved
examples, and compares every score. FOLDER holds `bigbench`, of the source archive of bigbench 1.0.0, and `t5`, of t5
0.9.4, side by side; `bigbench_reference.py` says how it is imported. Asked: equal to 1e-6, prompts included, which the
made-up model only knows as we write them.

The second times the choices of date_understanding and causal_judgment beside lm-evaluation-harness's model for
`transformers`, if `lm_eval` is installed, and else beside a loop of the same. Asked: the same log-probabilities to 1e-3
in float32, and in bfloat16, of each task, three times as many questions a second as with one forward pass a choice. The
harness as it comes takes all choices of one token, as causal_judgment has them, from one forward pass (`logits_cache`);
it is timed as well. Needs `safe_align[bigbench]` and scikit-learn; exit 1 if something asked for is not so.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bigbench_reference
import machine
import torch

from safe_align.engine import Engine, Placement, can_bf16
from safe_align.evaluate.tasks.encoding import Asked, Encoder, log_probs
from safe_align.evaluate.tasks.metrics import Sample, measure
from safe_align.evaluate.tasks.prompts import Question, answer_in, questions
from safe_align.evaluate.tasks.results import results, score_of, with_wholes
from safe_align.evaluate.tasks.schema import read
from safe_align.evaluate.tasks.task import Task, find
from safe_align.models.loading import load_policy, load_tokenizer
from safe_align.placing import make_engine

SHOTS, SEED, LIMIT, LOG_PROB_LIMIT = [0, 2], 42, 1e-6, 1e-3
TIMED, FASTER = ('date_understanding', 'causal_judgment'), 3.0
Scorer = Callable[[Sequence[Asked]], list[list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tasks', required=True, help='a clone of BIG-bench, or a folder of TASK/task.json')
    parser.add_argument('--reference', help='a folder with the packages bigbench and t5')
    parser.add_argument('--model', help='a policy')
    parser.add_argument('--questions', type=int, default=20, help='of each task that is timed')
    parser.add_argument('--max_examples', type=int, help='of each task that is compared')
    parser.add_argument('--repeats', type=int, default=3)
    args = parser.parse_args()
    fine = [compare(Path(args.tasks), Path(args.reference), args.max_examples)] if args.reference else []
    if args.model:
        fine.append(time_choices(args))
    sys.exit(0 if all(fine) else 1)


def compare(root: Path, place: Path, most: int | None) -> bool:
    """Every score of every task, ours and the reference's."""
    reference = bigbench_reference.load(place)
    differences, left = dict[str, list[float]](), list[str]()
    inside = root / 'bigbench/benchmark_tasks'
    paths = sorted((inside if inside.is_dir() else root).rglob('task.json'))
    for path in paths:
        task = read(path)
        if min(len(leaf.examples) for leaf in task.leaves()) <= max(SHOTS):
            left.append(path.parent.name)
            continue
        for name, ours, theirs in scores(task, path, reference, most):
            key = name.split()[-1]
            differences.setdefault(key, []).append(abs(ours - theirs))
            if not abs(ours - theirs) <= LIMIT:
                print(f'{path.parent.name}: {name}: {ours} here, {theirs} there')
    print(f'\n| of {len(paths) - len(left)} tasks, with {SHOTS} shots | values | largest difference |\n|---|---|---|')
    for key, values in sorted(differences.items()):
        print(f'| {key} | {len(values)} | {max(values):.1e} |')
    if left:
        print(f'left out, for want of examples: {", ".join(left)}')
    return all(value <= LIMIT for values in differences.values() for value in values)


def scores(task: Task, path: Path, reference: Any, most: int | None) -> list[tuple[str, float, float]]:
    """Numbers of the two, by the task, the number of solved examples and the score."""
    leaves = task.leaves()
    share = most and max(3, most // len(leaves))
    parts = {(leaf.name, n): (leaf, questions(leaf, n, SEED, share)) for leaf in leaves for n in SHOTS}
    targets = {one.input: one.targets for _, some in parts.values() for one in some}
    oracle = bigbench_reference.Oracle(targets, reference.postprocess)
    own = {
        key: score_of(leaf, key[1], {'num_questions': len(some)}, _estimates(leaf, some, oracle))
        for key, (leaf, some) in parts.items()
    }
    ours = with_wholes(task, own, SHOTS)
    told = results(task.name, ours, dict.fromkeys(MODEL_DATA, 0))
    reference.ResultsFileData.fromdict(told, normalize=False)
    peer = reference.JsonTask(str(path), shot_list=SHOTS, max_examples=share and share * len(leaves))
    theirs = peer.evaluate_model(oracle, random_seed=SEED)
    assert [(one.task, one.num_shots) for one in ours] == [(o.subtask_description, o.number_of_shots) for o in theirs]
    rows = []
    for one, other in zip(told['scores'], theirs, strict=True):
        assert one['preferred_score'] == other.preferred_score
        assert one['score_dict'].keys() == other.score_dict.keys(), (one['score_dict'], other.score_dict)
        where = f'{other.subtask_description} {other.number_of_shots}'
        rows += [(f'{where} {key}', one['score_dict'][key], float(value)) for key, value in other.score_dict.items()]
        rows += [(f'{where} {key}', one[key], float(getattr(other, key))) for key in ('low_score', 'high_score')]
    return rows


MODEL_DATA = (
    'model_family', 'model_name', 'total_params', 'non_embedding_params', 'flop_matched_non_embedding_params',
    'training_batch_size', 'training_steps', 'description', 'decoding_params',
)  # fmt: skip


def _estimates(task: Task, asked: Sequence[Question], oracle: bigbench_reference.Oracle) -> dict[str, Any]:
    samples = []
    for one in asked:
        known = ([bigbench_reference.log_prob(one.input, a) for a in some] for some in (one.scores, one.targets))
        by_choice, by_target = known
        response = answer_in(oracle.text(one.input), task) if task.is_generative else ''
        samples.append(Sample(one.targets, one.scores, by_choice, by_target, response, task.is_absolute))
    return {name: one for metric in task.metrics for name, one in measure(metric, samples).items()}


def time_choices(args: argparse.Namespace) -> bool:
    """Questions a second, ours and others', and how far apart the log-probabilities are."""
    print(machine.describe())
    peers = {'one forward a choice': plain}
    if importlib.util.find_spec('lm_eval') is not None:
        peers = {
            'lm-eval, one forward a choice': partial(harness, logits_cache=False),
            'lm-eval as it comes': partial(harness, logits_cache=True),
        }
    print(f'\n| questions a second | questions, choices | ours | {" | times | ".join(peers)} | times | gap, float32 |')
    print('|---' * (4 + 2 * len(peers)) + '|')
    encoder, fine = Encoder(load_tokenizer(args.model, '--model'), 2048), True
    for name in TIMED:
        some = questions(read(find(name, args.tasks)), 0, SEED, args.questions)
        asked = [encoder.asked(one.input, [*one.scores]) for one in some]
        gap = max(_gap(ours(args.model, False)(asked), peer(args.model, False)(asked)) for peer in peers.values())
        own, *others = _speeds([make(args.model, can_bf16()) for make in (ours, *peers.values())], asked, args.repeats)
        choices = sum(len(one.answers) for one in asked)
        cells = ' | '.join(f'{speed:.2f} | {own / speed:.1f}' for speed in others)
        print(f'| {name} | {len(asked)}, {choices} | {own:.2f} | {cells} | {gap:.1e} |')
        fine &= gap <= LOG_PROB_LIMIT and own / others[0] >= FASTER
    return fine


def _speeds(scorers: list[Scorer], asked: Sequence[Asked], repeats: int) -> list[float]:
    """Questions a second, the most of several times; they take turns, so that a busy machine is busy for all."""
    for scorer in scorers:
        scorer(asked[:2])  # to warm up
    times = [[machine.seconds_of(partial(scorer, asked)) for scorer in scorers] for _ in range(repeats)]
    return [len(asked) / min(column) for column in zip(*times, strict=True)]


def _gap(ours: list[list[float]], theirs: list[list[float]]) -> float:
    return max(abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True))


def ours(model: str, bf16: bool) -> Scorer:
    """The stage's own."""
    engine: Engine = make_engine(load_policy(model), Placement(bf16=bf16))
    return lambda asked: log_probs(engine, asked, 4096)


def harness(model: str, bf16: bool, logits_cache: bool) -> Scorer:
    """lm-evaluation-harness, given the same ids; without its cache of logits, each choice is a row of its own."""
    from lm_eval.models.huggingface import HFLM

    dtype = 'bfloat16' if bf16 else 'float32'
    peer = HFLM(model, dtype=dtype, device='cpu', batch_size=1, logits_cache=logits_cache)

    def score(asked: Sequence[Asked]) -> list[list[float]]:
        rows = [(('', ''), one.prompt, ids) for one in asked for ids in one.answers]
        found = iter(peer._loglikelihood_tokens(rows, disable_tqdm=True))
        return [[next(found)[0] for _ in one.answers] for one in asked]

    return score


def plain(model: str, bf16: bool) -> Scorer:
    """A loop of our own that does what it does: one row a choice, logits of all positions."""
    from transformers import AutoModelForCausalLM

    peer = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if bf16 else torch.float32)

    @torch.inference_mode()
    def one_row(prompt: list[int], ids: list[int]) -> float:
        logits = peer(torch.tensor([prompt + ids[:-1]])).logits.float().log_softmax(-1)[0, len(prompt) - 1 :]
        return float(logits.gather(-1, torch.tensor(ids)[:, None]).sum())

    return lambda asked: [[one_row(one.prompt, ids) for ids in one.answers] for one in asked]


if __name__ == '__main__':
    main()
