"""A sampler by its name: the laws that it asks for, and the models that these read."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

from safe_align import plugins
from safe_align.config import UserError
from safe_align.laws import Law
from safe_align.online.listings import SAMPLERS
from safe_align.options import check_name, read_options


def laws_of(name: str, num_samples: int, given: Sequence[str] = ()) -> list[Law]:
    """The law of each response that is drawn: as many as are kept, or a multiple; `given` are options NAME=VALUE.

    Raises:
        UserError: there is no such sampler or option, or it cannot draw so many.
    """
    check_name('sampler', name, plugins.names(SAMPLERS))
    draws = plugins.load(SAMPLERS, name).laws
    _, *known = inspect.signature(draws).parameters.items()
    laws = list(draws(num_samples, **read_options('sampler', name, given, dict(known))))
    if not laws or len(laws) % num_samples or not all(isinstance(law, Law) for law in laws):
        raise UserError(f'--sampler {name}: laws({num_samples}) gave no laws, or no multiple of that number')
    if not all(any(law.models) and all(map(math.isfinite, law)) for law in laws):
        raise UserError(
            f'--sampler {name} {" ".join(given)}: a law of neither model, or of a number that is not finite'
        )
    return laws


def check_reads(name: str, laws: Sequence[Law], policy: str, reference: str | None, trust_remote_code: bool) -> None:
    """Refuse a reference that is missing, not read, or of another vocabulary.

    Raises:
        UserError: it says which.
    """
    from safe_align.models.reference import check_reference  # which takes torch, and laws need none

    reads_reference = any(law.models[1] for law in laws)
    if reads_reference and not reference:
        raise UserError(f'--sampler {name}: draws from the reference; give --ref_model_name_or_path')
    if reference and not reads_reference:
        raise UserError(f'--ref_model_name_or_path: --sampler {name} reads no reference; leave it out')
    if reference:
        check_reference(reference, policy, trust_remote_code)


def best_of(scores: Sequence[float], n: int) -> list[int]:
    """The number of the first of the highest scores in each run of `n`."""
    return [max(range(start, start + n), key=lambda one: (scores[one], -one)) for start in range(0, len(scores), n)]
