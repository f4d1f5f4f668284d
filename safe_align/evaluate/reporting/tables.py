"""Tables and facts of the report; any summary of an evaluation becomes some, whatever its keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safe_align.evaluate.reporting.charts import interval_bar
from safe_align.evaluate.reporting.html import Child, Markup, tag
from safe_align.evaluate.reporting.words import ENDS, in_order, interval, is_estimate, minus, number, short_path, words

Json = dict[str, Any]
NAMES = ('task', 'num_shots', 'category')  # which tell items apart even where they are numbers or missing


def table(caption: Child, heads: Sequence[Child], rows: Sequence[Sequence[Child]]) -> Markup:
    """A table whose first column heads its rows, in a frame that scrolls where it is too wide."""
    head = tag('tr', [tag('th', one, scope='col') if one else tag('td') for one in heads])
    body = [tag('tr', tag('th', first, scope='row'), [tag('td', cell) for cell in rest]) for first, *rest in rows]
    whole = tag('table', tag('caption', caption), tag('thead', head), tag('tbody', body))
    return tag('div', whole, class_='scroll', tabindex=0, role='group', aria_label=str(caption))


def facts(pairs: Sequence[tuple[Child, Child]]) -> Markup:
    """Names and values, those with a value."""
    told = [tag('div', tag('dt', name), tag('dd', value)) for name, value in pairs if value not in (None, '')]
    return tag('dl', told)


def plain(value: Any) -> Child:
    """A value that is no estimate, as text."""
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int | float):
        return number(value) if isinstance(value, int) else minus(f'{value:.4g}')
    if isinstance(value, str):
        return tag('span', short_path(value), title=value) if short_path(value) != value else value
    if isinstance(value, list):
        return ', '.join(map(str, value))
    return '–' if value is None else str(value) if value else ''


def told(one: Json) -> list[Child]:
    """An estimate with its interval, for a cell."""
    value, ends = interval(one)
    return [value, ' ', tag('small', ends)]


def estimates(told: dict[str, Json], caption: str) -> Markup:
    """A row an estimate, with its interval."""
    rows = [[words(name), *interval(told[name])] for name in in_order(told)]
    return table(caption, ['', 'estimate', '95% interval'], rows)


def summary_tables(summary: Any, name: str = '') -> list[Markup]:
    """Every number of a summary: facts, then a table of its estimates, then what is nested in it."""
    if isinstance(summary, list):
        return _listing([one for one in summary if isinstance(one, dict)], name)
    if summary and all(_is_listing(value) for value in summary.values()):
        return _listing([one for value in summary.values() for one in value], name)
    known = {key: value for key, value in summary.items() if is_estimate(value)}
    nested = {key: value for key, value in summary.items() if _is_nested(value)}
    rest = [key for key in in_order(summary) if key not in known and key not in nested]
    before = f'{name}: ' if name else ''
    parts = [facts([(before + words(key), plain(summary[key])) for key in rest])] if rest else []
    parts += [estimates(known, name or 'Estimates')] if known else []
    for key in in_order(nested):
        made = summary_tables(nested[key], f'{name}, {words(key)}' if name else words(key))
        parts += [tag('details', tag('summary', f'{words(key)}, {len(made)} tables'), made)] if len(made) > 4 else made
    return parts


def _listing(items: list[Json], name: str) -> list[Markup]:
    """A table of the items; what is nested in them follows, each with the words that tell items apart."""
    keys = in_order(dict.fromkeys(key for item in items for key in item))
    nested = [key for key in keys if any(_is_nested(item.get(key)) for item in items)]
    flat = [key for key in keys if key not in nested]
    who = [key for key in flat if key in NAMES or all(isinstance(item.get(key), str | None) for item in items)]
    who = who or flat[:1]
    ordered = [*who, *(key for key in flat if key not in who)]
    parts: list[Markup] = []
    if len(ordered) > len(who) or not nested:
        columns = [_column([item.get(key) for item in items]) for key in ordered]
        rows = [list(row) for row in zip(*columns, strict=True)]
        parts += [table(name or 'Results', list(map(words, ordered)), rows)] if rows else []
    for key in nested:
        inner = [({one: item[one] for one in who}, item[key]) for item in items if item.get(key)]
        if all(isinstance(value, dict) for _, value in inner):
            parts += _listing([label | value for label, value in inner], f'{name}, {words(key)}')
        else:
            for label, value in inner:
                parts += summary_tables(value, f'{name}, {", ".join(map(str, label.values()))}, {words(key)}')
    return parts


def _column(values: list[Any]) -> list[Child]:
    """Cells; estimates have their interval drawn, on one scale down the column."""
    ends = [end for value in values if is_estimate(value) for end in map(value.get, ENDS) if end is not None]
    if not ends:
        return [plain(value) for value in values]
    low, high, several = min(ends), max(ends), sum(map(is_estimate, values)) > 1
    return [
        [told(one), interval_bar(one, low, high) if several else None] if is_estimate(one) else plain(one)
        for one in values
    ]  # fmt: skip


def _is_nested(value: Any) -> bool:
    return (isinstance(value, dict) and bool(value) and not is_estimate(value)) or _is_listing(value)


def _is_listing(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
