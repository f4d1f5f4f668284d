"""BLEU and ROUGE of BIG-bench's tasks, by sacrebleu and rouge-score."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from safe_align.config import UserError
from safe_align.evaluate.statistics import Estimate, mean, of_sums

PACKAGES = {'bleu': ('sacrebleu', 'sacrebleu'), 'rouge': ('rouge_score', 'rouge-score')}  # module, package
ROUGE = ('rouge1', 'rouge2', 'rougeLsum')
MAX_ORDER = 4


def check_installed(metrics: Sequence[str], where: str) -> None:
    """Refuse a metric whose package is not there.

    Raises:
        UserError: it says what to install.
    """
    for metric in metrics:
        module, package = PACKAGES.get(metric, ('', ''))
        if module and importlib.util.find_spec(module) is None:
            raise UserError(f"{where}: metrics: {metric} needs {package}; pip install 'safe_align[bigbench]'")


def bleu(targets: Sequence[Sequence[str]], responses: Sequence[str]) -> Estimate:
    """BLEU of all responses together, 0 to 100: sacrebleu's, its tokenizer `intl`, exponential smoothing."""
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize='intl', smooth_method='exp', effective_order=True)  # which changes the score, not the counts
    parts = [metric.sentence_score(response, list(some)) for response, some in zip(responses, targets, strict=True)]
    rows = [[*part.counts, *part.totals, part.sys_len, part.ref_len] for part in parts]

    def score(sums: np.ndarray) -> float:
        counts = [int(one) for one in sums]
        return BLEU.compute_bleu(
            counts[:MAX_ORDER], counts[MAX_ORDER : 2 * MAX_ORDER], counts[-2], counts[-1], smooth_method='exp',
            max_ngram_order=MAX_ORDER,
        ).score  # fmt: skip

    return of_sums(score, rows)


def rouge(targets: Sequence[Sequence[str]], responses: Sequence[str]) -> dict[str, Estimate]:
    """Mean F1, 0 to 100, of each response with the target that is nearest to it by that measure.

    BIG-bench reports the median of a thousand resampled means, drawn anew each time; this is the mean that they are of.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE))
    found = [
        [scorer.score(_sentences(target), _sentences(response)) for target in some]
        for some, response in zip(targets, responses, strict=True)
    ]
    return {name: mean([100 * max(one[name].fmeasure for one in some) for some in found]) for name in ROUGE}


def _sentences(text: str) -> str:
    """A line a sentence, which rougeLsum goes by."""
    return text.replace(' . ', ' .\n')
