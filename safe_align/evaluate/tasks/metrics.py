"""BIG-bench's metrics, as the `bigbench` package 1.0.0 computes them, with 95% intervals over questions.

A metric that is a mean has one number a question. One that is not (BLEU, the calibration error, macro F1) is computed
of sums over questions, and its interval is the jackknife's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp, softmax

from safe_align.evaluate.statistics import Estimate, mean, of_sums, rate, ratio
from safe_align.evaluate.tasks.text import bleu, rouge

NUM_BUCKETS = 15


@dataclass(frozen=True)
class Sample:
    """A question that was asked.

    Args:
        targets: the right answers.
        scores: of each choice, in order.
        log_probs: of each choice given the question, in nats.
        target_log_probs: of each right answer given the question, in nats.
        response: what the policy wrote, cut as the task says.
        is_absolute: whether ties are looked for among `log_probs` as they are, not normalised over the choices.
    """

    targets: list[str]
    scores: dict[str, float] = field(default_factory=dict)
    log_probs: list[float] = field(default_factory=list)
    target_log_probs: list[float] = field(default_factory=list)
    response: str = ''
    is_absolute: bool = False

    @property
    def chosen(self) -> int:
        """The likeliest choice, by number; of equals, one by a hash of all log-probabilities, as in BIG-bench."""
        log_probs = np.array(self.log_probs, np.float64)
        if not self.is_absolute:
            log_probs = log_probs - logsumexp(log_probs)
        best = np.flatnonzero(log_probs == log_probs.max())
        return int(best[int(hashlib.sha256(log_probs.tobytes()).hexdigest(), 16) % len(best)])

    @property
    def probs(self) -> np.ndarray:
        """The probabilities of the choices, normalised over them: (C,)."""
        return softmax(np.array(self.log_probs))

    @property
    def shares(self) -> np.ndarray:
        """The scores of the choices, so that they sum to 1; zeros if they sum to 0: (C,)."""
        scores = np.array([*self.scores.values()], float)
        return scores / scores.sum() if scores.sum() else np.zeros(len(scores))


Samples = Sequence[Sample]


def measure(metric: str, samples: Samples) -> dict[str, Estimate]:
    """What a metric of BIG-bench says, by the names of its scores; at least one sample."""
    return METRICS[metric](samples)


def _average(values: Sequence[float]) -> Estimate:
    return rate(values) if set(values) <= {0, 1} else mean(values)


def multiple_choice_grade(samples: Samples) -> dict[str, Estimate]:
    """The mean score of the likeliest choice, 0 to 1, and with it two measures of calibration."""
    grades = _average([[*one.scores.values()][one.chosen] for one in samples])
    return {'multiple_choice_grade': grades, **brier_score(samples), **calibration_error(samples)}


def brier_score(samples: Samples) -> dict[str, Estimate]:
    """Mean over all choices of t (p - 1)^2 + (1 - t) p^2; p is its probability, t its share of the scores."""
    totals = [float((one.shares * (one.probs - 1) ** 2 + (1 - one.shares) * one.probs**2).sum()) for one in samples]
    return {'calibration_multiple_choice_brier_score': ratio(totals, [len(one.scores) for one in samples])}


def calibration_error(samples: Samples) -> dict[str, Estimate]:
    """Sum over 15 buckets of confidence of (share of the questions) |accuracy - mean confidence|, 0 to 1."""
    rows = np.zeros((len(samples), 2, NUM_BUCKETS))
    for n, one in enumerate(samples):
        confidence = one.probs.max()
        edges = [(k + 1) / NUM_BUCKETS for k in range(NUM_BUCKETS - 1)]
        bucket = int(np.searchsorted(edges, confidence, side='right'))
        rows[n, 0, bucket] = float(one.shares.argmax() == one.probs.argmax()) - confidence
        rows[n, 1, bucket] = 1

    def error(sums: np.ndarray) -> float:
        gaps, counts = sums.reshape(2, NUM_BUCKETS)
        return float(np.abs(gaps).sum() / counts.sum())

    return {'expected_calibration_error': of_sums(error, rows.reshape(len(samples), -1))}


def weighted_log_probabilities(samples: Samples) -> dict[str, Estimate]:
    """Mean of the sum over choices of score times log-probability, in nats."""
    sums = [float(np.dot([*one.scores.values()], one.log_probs)) for one in samples]
    return {'weighted_log_probabilities': mean(sums)}


def weighted_probabilities(samples: Samples) -> dict[str, Estimate]:
    """Mean of the sum over choices of score times probability."""
    sums = [float(np.dot([*one.scores.values()], np.exp(one.log_probs))) for one in samples]
    return {'weighted_probabilities': mean(sums)}


def macro_f1(samples: Samples) -> dict[str, Estimate]:
    """The mean over choices, as labels, of 2 tp / (right ones + chosen ones), of labels that are either at all."""
    right = [next(choice for choice, score in one.scores.items() if score == 1) for one in samples]
    chosen = [[*one.scores][one.chosen] for one in samples]
    labels = {label: n for n, label in enumerate(dict.fromkeys([*right, *chosen]))}
    rows = np.zeros((len(samples), 2, len(labels)), np.float32)
    for n, pair in enumerate(zip(right, chosen, strict=True)):
        rows[n, 0, labels[pair[0]]] = pair[0] == pair[1]
        for label in pair:
            rows[n, 1, labels[label]] += 1

    def f1(sums: np.ndarray) -> float:
        hits, either = sums.reshape(2, -1)
        return float((2 * hits[either > 0] / either[either > 0]).mean())

    return {'macro_f1': of_sums(f1, rows.reshape(len(samples), -1))}


def exact_str_match(samples: Samples) -> dict[str, Estimate]:
    """How often the response is one of the targets, letter for letter."""
    return {'exact_str_match': rate([one.response in one.targets for one in samples])}


def case_insensitive_str_match(samples: Samples) -> dict[str, Estimate]:
    """The same in lower case, without white space around."""
    found = [one.response.strip().lower() in [t.strip().lower() for t in one.targets] for one in samples]
    return {'case_insensitive_str_match': rate(found)}


def sequence_f1(samples: Samples) -> dict[str, Estimate]:
    """The mean share, in percent, of the first target's words that stand at their places in the response."""
    values = []
    for one in samples:
        words, given = one.targets[0].split(' '), one.response.split(' ')
        given += ['O'] * (len(words) - len(given))
        values.append(100 * float(np.mean([a == b for a, b in zip(words, given, strict=False)])))
    return {'sequence_f1': mean(values)}


def numeric_match(samples: Samples) -> dict[str, Estimate]:
    """How often |response - target| / target is at most 0.1; of a target of 0, the difference.

    As in BIG-bench the target keeps its sign, so any number matches a negative one.
    """
    name = 'numeric_match_with_0_1_relative_error'
    return {name: rate([_is_near(one.response, one.targets[0]) for one in samples])}


def _is_near(response: str, target: str) -> bool:
    try:
        value, wanted = float(response), float(target)
    except ValueError:
        return False
    return abs(value - wanted) / (wanted or 1) <= 0.1


def log_likelihood(samples: Samples) -> dict[str, Estimate]:
    """The mean log-probability of the targets, in nats; with one target each, also a word and a character of it.

    The probabilities of several targets are summed.
    """
    if any(len(one.targets) > 1 for one in samples):
        return {'log_likelihood': mean([float(logsumexp(one.target_log_probs)) for one in samples])}
    values = np.array([one.target_log_probs[0] for one in samples])
    return {
        'log_likelihood': mean(values),
        'log_likelihood_per_word': mean(values / [len(one.targets[0].split()) for one in samples]),
        'log_likelihood_per_char': mean(values / [len(one.targets[0]) for one in samples]),
    }


def _bleu(samples: Samples) -> dict[str, Estimate]:
    return {'bleu': bleu([one.targets for one in samples], [one.response for one in samples])}


def _rouge(samples: Samples) -> dict[str, Estimate]:
    return rouge([one.targets for one in samples], [one.response for one in samples])


METRICS: dict[str, Callable[[Samples], dict[str, Estimate]]] = {
    'multiple_choice_grade': multiple_choice_grade, 'calibration_multiple_choice_brier_score': brier_score,
    'expected_calibration_error': calibration_error, 'weighted_log_probabilities': weighted_log_probabilities,
    'weighted_probabilities': weighted_probabilities, 'macro_f1': macro_f1, 'exact_str_match': exact_str_match,
    'case_insensitive_str_match': case_insensitive_str_match, 'sequence_f1': sequence_f1,
    'numeric_match_with_0_1_relative_error': numeric_match, 'log_likelihood': log_likelihood, 'bleu': _bleu,
    'rouge': _rouge,
}  # fmt: skip
