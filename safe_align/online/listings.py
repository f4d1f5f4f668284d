"""Samplers and annotators in words, for `--help` and docs/."""

from __future__ import annotations

import inspect

from safe_align import plugins
from safe_align.options import Listed, first_line, listing

SAMPLERS, ANNOTATORS = 'safe_align.online.samplers', 'safe_align.online.annotators'


def samplers() -> list[Listed]:
    """Of each sampler, the user's too: its name, what it is in a line, the models that it reads, its options."""
    found = []
    for name in plugins.names(SAMPLERS):
        module = plugins.load(SAMPLERS, name)
        reads = [any(which) for which in zip(*(law.models for law in module.laws(2)), strict=True)]
        models = [model for model, is_read in zip(('policy', 'reference'), reads, strict=True) if is_read]
        _, *options = inspect.signature(module.laws).parameters.values()
        told = ' '.join(f'{one.name}={one.default}' for one in options)
        found.append(Listed(name, first_line(module), ', '.join(models), told))
    return found


def annotators() -> list[Listed]:
    """Of each annotator, the user's too: its name, what it is in a line, the flags that it needs."""
    return listing(ANNOTATORS)
