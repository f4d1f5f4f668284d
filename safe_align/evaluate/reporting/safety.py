"""A certificate: its verdict in words, how far the bound is from the threshold, and the costs behind it."""

from __future__ import annotations

from typing import Any

from safe_align.evaluate.certification import text
from safe_align.evaluate.reporting.charts import Mark, gauge, histogram
from safe_align.evaluate.reporting.collect import Json, Stage, read_lines
from safe_align.evaluate.reporting.html import Child, Markup, tag
from safe_align.evaluate.reporting.records import link
from safe_align.evaluate.reporting.tables import facts


def certificate_of(stage: Stage) -> list[Child]:
    """Everything that a certificate says, for a reader who is no statistician."""
    content = stage.read('certificate.json')
    if not content:
        return []
    rows = read_lines(stage.directory / 'costs.jsonl', stage.notes)
    parts: list[Child] = [verdict(content)]
    for one in content['constraints']:
        parts += [tag('p', _prose(text.promise_of(content, one))), *_pictures(one, rows)]
    parts.append(tag('details', tag('summary', 'Under which assumptions'), _bullets(text.assumptions_of(content))))
    parts.append(tag('details', tag('summary', 'What is not promised'), _bullets(text.limits_of(content))))
    command = f'python -m safe_align.evaluate.safety_test --verify {stage.directory / "certificate.json"}'
    return [*parts, tag('p', 'This page repeats the certificate. To have it computed again: ', tag('code', command))]


def verdict(content: Json) -> Markup:
    """Whether it is certified, at a glance."""
    holds = content['verdict'] == 'certified'
    mark = tag('span', '✓ ' if holds else '○ ', aria_hidden='true')
    return tag('p', mark, text.verdict_of(content), class_='verdict' + ' holds' * holds)


def headlines(stage: Stage) -> list[Child]:
    """The certificate in a line."""
    content = stage.read('certificate.json')
    if not content:
        return []
    told = []
    for one in content['constraints']:
        sign = '≤' if one['holds'] else '>'
        value, threshold = (text.number_of(one, number) for number in (one['value'], one['claim']['threshold']))
        told.append(f'{text.quantity_of(one)}: bound {value} {sign} {threshold}')
    delta = content['constraints'][0]['claim']['delta']
    small = f'{"; ".join(told)}; {content["prompts"]["num"]} prompts, delta {delta:g}'
    return [tag('li', verdict(content), tag('p', small), link(stage))]


def _pictures(one: Json, rows: list[Json]) -> list[Markup]:
    claim = one['claim']
    is_rate = claim['kind'] == 'unsafe_rate'
    figures = facts([
        ('observed', text.number_of(one, one['mean'])), ('bound', text.number_of(one, one['value'])),
        ('threshold', text.number_of(one, claim['threshold'])), ('delta', f'{claim["delta"]:g}'),
        ('kind of bound', claim['bound']), ('prompts', len(one['costs'])),
        ('responses with a cost above 0', one['num_unsafe']),
    ])  # fmt: skip
    costs = _costs(one, rows)
    title = 'Costs of the responses' + (f', {one["stratum"]}' if one['stratum'] else '')
    if is_rate:
        drawn = [gauge(one['mean'], one['value'], claim['threshold'], lambda value: f'{value:.1%}')]
        above = sum(cost > 0 for cost in costs)
        note = f'{len(costs) - above} at or below 0, judged safe; {above} above 0, judged unsafe'
        drawn += [histogram(title, costs, [], 0.0, note)] if costs else []
    else:
        marks = [Mark('mean', one['mean']), Mark('bound', one['value']), Mark('threshold', claim['threshold'])]
        drawn = [histogram('Costs of the prompts', one['costs'], marks, None, f'{len(one["costs"])} prompts')]
    return [figures, *drawn]


def _costs(one: Json, rows: list[Json]) -> list[float]:
    """Of each response, by the cost model of this constraint; none where a stratum or labels pick some of them."""
    if one['stratum'] is not None or one['audit']:
        return []
    found: list[Any] = [row.get('cost') for row in rows]
    return [cost[one['column']] if isinstance(cost, list) else cost for cost in found if cost is not None]


def _prose(line: str) -> list[Child]:
    """Text in which names stand between back-ticks."""
    return [tag('code', part) if n % 2 else part for n, part in enumerate(line.split('`'))]


def _bullets(lines: list[str]) -> Markup:
    return tag('ul', [tag('li', _prose(line)) for line in lines])
