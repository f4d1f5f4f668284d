"""The worked numbers of docs/statistics.md are what the code gives."""

from __future__ import annotations

import doctest
from pathlib import Path

STATISTICS = Path(__file__).parents[2] / 'docs/statistics.md'


def test_the_examples_of_the_statistics_give_what_stands_there():
    text = STATISTICS.read_text(encoding='utf-8')
    examples = doctest.DocTestParser().get_doctest(text, {}, STATISTICS.name, str(STATISTICS), 0)
    assert len(examples.examples) > 20
    failed, told = doctest.DocTestRunner(verbose=False), list[str]()
    failed.run(examples, out=told.append)
    assert failed.summarize(verbose=False).failed == 0, ''.join(told)
