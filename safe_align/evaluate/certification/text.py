"""A certificate in words, for a reader who is no statistician."""

from __future__ import annotations

from typing import Any

Content = dict[str, Any]
MODELS_SHOWN = 20


def summary(content: Content) -> str:
    """A few lines for a terminal."""
    lines = [f'{verdict_of(content)}: {_policy(content)}, {content["prompts"]["num"]} prompts']
    for one in content['constraints']:
        claim = one['claim']
        sign = '<=' if one['holds'] else '>'
        lines.append(
            f'{quantity_of(one)}: {one["mean"]:.4g} observed, bound {one["value"]:.6g} {sign} threshold '
            f'{claim["threshold"]:g} ({claim["bound"]}, delta {one["level"]:g})'
        )
    return '\n'.join(lines)


def page(content: Content) -> str:
    """The README beside the certificate."""
    parts = [
        f'# Safety test: {verdict_of(content)}',
        '\n\n'.join(promise_of(content, one) for one in content['constraints']), *_which(content), *_sequence(content),
        '![Costs, threshold and bound](costs.svg)',
        '## In figures', _table(content),
        '## Under which assumptions', _bullets(assumptions_of(content)),
        '## What is not promised', _bullets(limits_of(content)),
        '## The models and what they were trained on', _lineage(content),
        '## Checking it',
        f'`python -m safe_align.evaluate.safety_test --verify certificate.json{_own_files(content)}` computes the '
        'bound again from `costs.jsonl`, and looks at the hashes of the models. It ends with 0 if all agrees, and '
        'with 2 and what differs if not.',
    ]  # fmt: skip
    return '\n\n'.join(parts) + '\n'


def verdict_of(content: Content) -> str:
    """What came of the test, in a word or two."""
    holds = [one['holds'] for one in content['constraints']]
    if content['terms']['constraints'] == 'all' or not any(holds):
        return str(content['verdict'])
    return f'{content["verdict"]}, {sum(holds)} of {len(holds)} constraints'


def _policy(content: Content) -> str:
    return f'policy {content["policy"]["path"]}' if content['policy'] else 'costs as given'


def quantity_of(one: Content) -> str:
    """What a constraint bounds."""
    kind = '' if one['stratum'] is None else f' on {one["stratum"]}'
    if one['target'] == 'cvar':
        return f'mean of the worst tenth{kind}'
    return f'rate of unsafe responses{kind}' if one['claim']['kind'] == 'unsafe_rate' else f'mean cost{kind}'


def number_of(one: Content, value: float) -> str:
    """A value of that quantity: a rate in percent."""
    return f'{value:.2%}' if one['claim']['kind'] == 'unsafe_rate' else f'{value:.4g}'


def promise_of(content: Content, one: Content) -> str:
    """What a constraint says, in sentences."""
    claim, quantity = one['claim'], quantity_of(one)
    threshold, value = (number_of(one, number) for number in (claim['threshold'], one['value']))
    what = 'cost function' if _is_function(one) else 'cost model'
    model = f' by the {what} `{one["cost_model"]["path"]}`' if one['cost_model'] else ''
    if one['audit']:
        model = ' by the truth of the labels'
    unit = 'costs above 0 are unsafe' if claim['kind'] == 'unsafe_rate' else 'a lower cost is safer'
    where = 'like those of this test'
    if one['kinds']:
        where += ', ' + ', '.join(f'{kind["weight"]:.4g} of them {kind["kind"]}' for kind in one['kinds'])
    if one['holds']:
        return (
            f'On prompts {where}, the {quantity}{model} is at most {threshold} ({unit}). A test like '
            f'this one says so wrongly of a policy for which it is not true with a probability of at most '
            f'{claim["delta"]:g}. The {len(one["costs"])} prompts of this test would allow for {value}.'
        )
    return (
        f'This test does not show that the {quantity}{model} is at most {threshold} ({unit}): it may be as high as '
        f'{value}. That is no proof that the policy is unsafe. More prompts may show more; these are spent.'
    )


def _which(content: Content) -> list[str]:
    if content['terms']['constraints'] == 'all':
        return []
    count, delta = len(content['constraints']), content['constraints'][0]['claim']['delta']
    return [
        f'This test asks which of {count} constraints hold, not whether all do. The probability that it names any that '
        f'does not is at most {delta:g}, all {count} together (Holm). What it does not name may hold or not.'
    ]


def _sequence(content: Content) -> list[str]:
    told = content['sequence']
    if told is None:
        return []
    order = ', '.join(told['order'])
    return [
        f'This policy is number {told["number"]} of an order that was fixed before the test: {order}. Each is tested '
        'at the full delta, until one fails; the last one that passes is certified. The probability that any policy is '
        'certified wrongly in this way is at most delta.'
    ]


def _table(content: Content) -> str:
    rows = ['| | ' + ' | '.join(quantity_of(one) for one in content['constraints']) + ' |']
    rows.append('|---' * (len(content['constraints']) + 1) + '|')
    for name, cell in (
        ('observed', lambda one: number_of(one, one['mean'])),
        ('bound', lambda one: number_of(one, one['value'])),
        ('threshold', lambda one: number_of(one, one['claim']['threshold'])),
        ('delta', lambda one: f'{one["claim"]["delta"]:g}'),
        ('delta of the bound', lambda one: f'{one["level"]:.4g}'),
        ('kind of bound', lambda one: one['claim']['bound']),
        ('responses with a cost above 0', lambda one: str(one['num_unsafe'])),
        ('prompts', lambda one: str(len(one['costs']))),
    ):
        rows.append(f'| {name} | ' + ' | '.join(cell(one) for one in content['constraints']) + ' |')
    return '\n'.join(rows)


def assumptions_of(content: Content) -> list[str]:
    """What the promise rests on, a sentence each."""
    told = ['The prompts of this test are independent draws of those that the promise is about.']
    told += [f'They are {data["used"]} rows of {data["name"]}.' for data in content['prompts']['datasets'] or ()]
    told += dict.fromkeys(f'In words of statistics: {one["assumes"]}.' for one in content['constraints'])
    for name, digest in {
        (file['name'], file['sha256']) for one in content['constraints'] if (file := one['bound_file'])
    }:
        told.append(f'The bound is a file of its own, {name} (SHA-256 {digest}); its author alone says that it is one.')
    for kind in content['constraints'][0]['kinds'] or ():
        told.append(f'{kind["weight"]:.4g} of the prompts are {kind["kind"]}; {kind["num"]} of this test were.')
    if any(one['claim']['assume_normal'] for one in content['constraints']):
        told.append('The mean is taken to be normal. Where harm is rare it is not, and delta is exceeded.')
    if content['samples_per_prompt'] > 1:
        told.append('Prompts have several responses; the mean over those of a prompt is one number, and counts as one.')
    if content['decoding']:
        options = ', '.join(f'{name} {value}' for name, value in content['decoding'].items() if value is not None)
        told.append(f'Responses are drawn as in this test: {options}. Other settings make another policy.')
    for one in content['constraints']:
        low, high = one['claim']['low'], one['claim']['high']
        if one['claim']['clip_costs']:
            told.append(f'Costs are cut to [{low:g}, {high:g}]; {one["num_clipped"]} were. The mean is of these.')
        elif one['claim']['kind'] == 'mean_cost' and low is not None:
            told.append(f'No cost is outside [{low:g}, {high:g}]. None of this test was.')
    if content['prompts']['proved_new']:
        told.append('No prompt of this test is among those that the models below were trained on. That was checked.')
    else:
        told.append('The prompts are new to the models. That was not checked.')
    return told


def limits_of(content: Content) -> list[str]:
    """What it does not say, a sentence each."""
    told = [
        f'{one["num"]} prompts have labels. Where these are wrong, so is this test. On these prompts the labels are '
        f"{one['gap']:.4g} above the cost model's costs on average."
        for one in (constraint['audit'] for constraint in content['constraints'])
        if one
    ] or [f'The costs are those of {_scorers(content)}. Where it takes harm for harmless, so does this test.']
    told += [
        'It is about prompts like those of this test. Users who ask other things may see more harm.',
        'The probability is that of the test: of many unsafe policies, it lets a share of at most delta pass.',
    ]
    if content['constraints'][0]['stratum'] is None:
        told.append('It is about all prompts together. On some kinds of prompts the policy may be less safe.')
    for data in content['prompts']['datasets'] or ():
        if data['skipped']:
            why = ', '.join(f'{count} {reason}' for reason, count in data['skipped'].items())
            told.append(f'It is not about what was left out of {data["name"]}: {why}.')
    unknown = [one['path'] for one in content['lineage'] if one['num_prompts'] is None]
    if unknown:
        told.append(f'Nothing says what {", ".join(unknown[:MODELS_SHOWN])} was trained on; it may know the prompts.')
    return told


def _is_function(one: Content) -> bool:
    return bool(one['cost_model']) and one['cost_model']['kind'] == 'function'


def _scorers(content: Content) -> str:
    functions = [_is_function(one) for one in content['constraints']]
    return (
        'the cost function' if all(functions) else 'the cost model or function' if any(functions) else 'the cost model'
    )


def _lineage(content: Content) -> str:
    if not content['lineage']:
        return 'No model was given.'
    rows = ['| model | prompts it was trained on | content hash |', '|---|---|---|']
    for one in content['lineage']:
        count = 'unknown' if one['num_prompts'] is None else str(one['num_prompts'])
        rows.append(f'| {one["path"]} | {count} | {(one["hash"] or "none")[:16]} |')
    return '\n'.join(rows)


def _own_files(content: Content) -> str:
    names = dict.fromkeys(one['bound_file']['name'] for one in content['constraints'] if one['bound_file'])
    return ''.join(f' --plugin {name}' for name in names)


def _bullets(lines: list[str]) -> str:
    return '\n'.join(f'- {line}' for line in lines)
