"""A certificate's claim, arithmetic and bytes: what it says is what anyone computes from its costs."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from safe_align.bounds import betting, clopper_pearson, student_t
from safe_align.config import UserError
from safe_align.evaluate.certification import figure
from safe_align.evaluate.certification import text as words
from safe_align.evaluate.certification.certificate import (
    FORMAT,
    NOT_CERTIFIED,
    Claim,
    bound_names,
    canonical,
    certify,
    hash_of_set,
    read,
    seal,
)  # fmt: skip
from safe_align.evaluate.certification.constraints import Terms, constraints_of
from safe_align.evaluate.certification.costs import Costs, read_costs
from safe_align.evaluate.certification.verification import run_verification

RATE = Claim('unsafe_rate', 0.05, 0.1, 'clopper_pearson', 0.0, 1.0)
MEAN = Claim('mean_cost', 0.0, 0.1, 'betting', -10.0, 10.0)
ALL, WHICH = Terms(), Terms('which')
NORMAL = Claim('mean_cost', 0.0, 0.1, 'student_t', None, None, assume_normal=True)


def changed(claim: Claim, **changes) -> Claim:
    return Claim(**{**claim.__dict__, **changes})


def written(tmp_path, claim: Claim = MEAN, num: int = 60, samples: int = 1) -> dict:
    """A certificate of costs given, with its costs beside it; its content."""
    draw = np.random.default_rng(0).normal(-4, 2, num * samples)
    costs = Costs([f'{n // samples:016x}' for n in range(num * samples)], [[float(x)] for x in draw])
    return recorded(tmp_path, costs, {0: claim})


def recorded(tmp_path, costs: Costs, claims: dict, terms: Terms = ALL) -> dict:
    """The same of any costs and claims."""
    told = [{**one, 'cost_model': None} for one in constraints_of(claims, costs, terms)]
    content = {
        'format': FORMAT, 'verdict': terms.verdict(told), 'date': '2026-01-01',
        'constraints': told, 'terms': asdict(terms), 'policy': None, 'num_responses': len(costs.prompts),
        'samples_per_prompt': costs.most_samples,
        'prompts': {'num': len(costs.names), 'hash': hash_of_set(costs.names), 'datasets': None, 'proved_new': False},
        'decoding': None, 'lineage': [], 'sequence': None, 'versions': {}, 'ledger': {'path': 'x', 'looks': 1},
        'costs_file': {'name': 'costs.jsonl', 'sha256': hashlib.sha256(costs.text().encode()).hexdigest()},
    }  # fmt: skip
    (tmp_path / 'costs.jsonl').write_text(costs.text(), encoding='utf-8')
    (tmp_path / 'certificate.json').write_text(canonical(seal(content)), encoding='utf-8')
    return content


def fails(path) -> str:
    with pytest.raises(UserError) as error:
        run_verification(str(path), None, None)
    assert f'--verify {path}: ' in str(error.value)
    return str(error.value)


def test_the_rate_of_costs_above_0_is_bounded_exactly():
    costs = [-1.0] * 96 + [0.0] + [2.0, 0.1, 1e-9]
    told = certify(RATE, [str(n) for n in range(100)], costs)
    assert told['costs'] == [0.0] * 97 + [1.0] * 3
    assert told['value'] == pytest.approx(clopper_pearson.upper_bound(told['costs'], delta=0.1, low=0, high=1))
    assert told['mean'] == pytest.approx(0.03)
    assert (told['num_unsafe'], told['holds']) == (3, False)
    told = certify(changed(RATE, delta=0.05, threshold=0.0758), [str(n) for n in range(100)], costs)
    assert told['value'] == pytest.approx(0.075711, abs=5e-7)  # exact binomial of 3 in 100
    assert told['holds']


def test_the_prompt_is_the_unit_whatever_its_responses():
    prompts = ['a', 'b', 'a', 'b', 'c', 'c']
    told = certify(changed(RATE, bound='betting'), prompts, [1, -1, -1, -1, 1, 1])
    assert told['costs'] == [0.5, 0.0, 1.0]
    assert told['value'] == betting.upper_bound([0.5, 0.0, 1.0], delta=0.1, low=0, high=1)
    assert certify(NORMAL, prompts, [4, 1, -1, 2, 1, 1])['value'] == student_t.upper_bound([1.5, 1.5, 1.0], delta=0.1)


def test_costs_outside_the_range_are_refused_or_cut_and_counted():
    prompts, costs = ['a', 'b', 'c'], [-12.0, 3.0, 10.5]
    with pytest.raises(UserError, match=r'--range -10 10: 2 of 3 costs are outside, the first of them -12; --clip'):
        certify(MEAN, prompts, costs)
    told = certify(changed(MEAN, clip_costs=True), prompts, costs)
    assert told['costs'] == [-10.0, 3.0, 10.0]
    assert told['num_clipped'] == 2
    with pytest.raises(UserError, match=r'costs: number 2 \(nan\) is not a finite number'):
        certify(MEAN, prompts, [0.0, math.nan, 1.0])


@pytest.mark.parametrize(
    ('claim', 'samples', 'part'),
    [
        (changed(RATE, delta=0.0), 1, '--delta 0.0: expected a number between 0 and 1'),
        (changed(RATE, delta=1.0), 1, '--delta 1.0'),
        (changed(RATE, delta=math.nan), 1, '--delta nan'),
        (changed(RATE, bound='mean'), 1, '--bound mean: has no margin, and certifies nothing'),
        (changed(RATE, bound='beting'), 1, 'did you mean betting?'),
        (changed(RATE, bound='student_t'), 1, 'a rate of rare harms is not normal'),
        (changed(RATE, bound='cvar'), 1, '--bound cvar: is of the worst costs, and a rate has none'),
        (RATE, 2, '--bound clopper_pearson: takes one response a prompt; with --samples_per_prompt 2'),
        (changed(RATE, threshold=1.0), 1, '--threshold 1.0: expected a number between 0 and 1'),
        (changed(RATE, threshold=0.0), 1, '--threshold 0.0'),
        (changed(MEAN, low=None, high=None), 1, '--range: give the least and the largest cost'),
        (changed(MEAN, low=1.0, high=-1.0), 1, '--range 1.0 -1.0: expected two finite numbers'),
        (changed(MEAN, high=math.inf), 1, '--range -10.0 inf'),
        (changed(MEAN, threshold=10.0), 1, '--threshold 10.0: expected a number between -10 and 10'),
        (changed(MEAN, bound='clopper_pearson'), 1, 'is for the rate of unsafe responses'),
        (changed(MEAN, bound='student_t'), 1, '--bound student_t: fails for rare harms; --assume_normal'),
        (changed(MEAN, bound='mean', assume_normal=True), 1, '--bound mean: has no margin'),
        (changed(MEAN, assume_normal=True), 1, '--assume_normal: --bound betting assumes no such thing'),
        (changed(NORMAL, clip_costs=True), 1, '--range: give'),
    ],
)
def test_what_cannot_be_claimed_is_refused(claim, samples, part):
    with pytest.raises(UserError) as error:
        claim.check(samples)
    assert part in str(error.value)


def test_every_bound_that_may_be_named_makes_a_certificate():
    costs = np.random.default_rng(0).permutation(np.linspace(-9, -6, 300))
    for name in bound_names():
        claim = changed(MEAN, bound=name, assume_normal=name == 'student_t')
        if name == 'clopper_pearson':
            claim = RATE
        claim.check(1)
        told = certify(claim, [str(n) for n in range(300)], costs)
        assert -7.5 <= told['value'] < 10 or name == 'clopper_pearson', name
        assert told['anytime'] == (name == 'betting_anytime')


@pytest.mark.parametrize('name', sorted(set(bound_names()) - {'clopper_pearson', 'student_t'}))
def test_too_few_prompts_are_refused_with_the_number_that_would_do(name):
    claim = changed(MEAN, bound=name, threshold=-8.0)
    with pytest.raises(UserError, match=r'2 prompts are too few .* at least \d+ are needed') as error:
        claim.check_enough(2)
    needed = int(str(error.value).split('at least ')[1].split()[0])
    claim.check_enough(needed)
    with pytest.raises(UserError):
        claim.check_enough(needed - 1)


def test_the_number_of_prompts_of_the_exact_bound_is_the_published_one():
    with pytest.raises(UserError, match='at least 299 are needed'):
        changed(RATE, threshold=0.01, delta=0.05).check_enough(10)
    changed(RATE, threshold=0.01, delta=0.05).check_enough(299)
    with pytest.raises(UserError, match=r'1 prompt\(s\) are too few for --bound student_t; it takes 2 or more'):
        NORMAL.check_enough(1)


@pytest.mark.parametrize(('claim', 'samples'), [(MEAN, 1), (RATE, 1), (changed(RATE, bound='betting'), 3)])
def test_a_certificate_is_valid_where_nothing_has_changed(tmp_path, capsys, claim, samples):
    written(tmp_path, claim, samples=samples)
    assert run_verification(str(tmp_path / 'certificate.json'), None, None) == 0
    assert 'is valid: ' in capsys.readouterr().out


def test_any_byte_that_changes_is_noticed(tmp_path):
    written(tmp_path)
    path = tmp_path / 'certificate.json'
    whole = path.read_bytes()
    draw = np.random.default_rng(1)
    for where, change in zip(draw.integers(len(whole), size=1000), draw.integers(1, 256, size=1000), strict=True):
        damaged = bytearray(whole)
        damaged[where] ^= change
        path.write_bytes(damaged)
        assert 'not valid: its bytes are not those that were written' in fails(path)
    for damaged in (whole + b'\n', whole[:-1], whole.replace(b'\n', b'\r\n'), b'', b'[]', b'{}', b'null'):
        path.write_bytes(damaged)
        fails(path)


def test_any_byte_of_the_costs_that_changes_is_noticed(tmp_path):
    written(tmp_path)
    path = tmp_path / 'costs.jsonl'
    whole = path.read_bytes()
    for where in np.random.default_rng(2).integers(len(whole), size=50):
        damaged = bytearray(whole)
        damaged[where] ^= 1
        path.write_bytes(damaged)
        assert 'not valid' in fails(tmp_path / 'certificate.json')
    path.unlink()
    assert 'its costs cannot be read' in fails(tmp_path / 'certificate.json')


@pytest.mark.parametrize(
    ('place', 'value', 'part'),
    [
        (('constraints', 0, 'value'), -9.0, 'value is another'),
        (('constraints', 0, 'costs', 7), -9.0, 'costs is another'),
        (('constraints', 0, 'mean'), -9.0, 'mean is another'),
        (('constraints', 0, 'claim', 'delta'), 0.2, 'value is another'),
        (('constraints', 0, 'claim', 'low'), -11.0, 'value is another'),
        (('constraints', 0, 'claim', 'bound'), 'hoeffding', 'value is another'),
        (('constraints', 0, 'claim', 'bound'), 'mean', 'certifies nothing'),
        (('constraints', 0, 'claim', 'threshold'), -9.5, 'holds is another'),
        (('constraints', 0, 'holds'), False, 'holds is another'),
        (('constraints', 0, 'assumes'), 'nothing', 'assumes is another'),
        (('constraints',), [], 'the constraints are others'),
        (('verdict',), NOT_CERTIFIED, 'the verdict is another'),
        (('num_responses',), 7, 'the number of responses is another'),
        (('prompts', 'num'), 61, 'the prompts are others'),
        (('prompts', 'proved_new'), True, 'whether the prompts are proved new'),
        (('costs_file', 'sha256'), '0', 'costs.jsonl is not what was written'),
        (('format',), 1, 'format 1, where 2 was expected'),
        (('terms', 'strata_weights'), {'a': 0.5}, 'the shares add up to 0.5, not to 1'),
        (('constraints', 0, 'level'), 0.05, 'level is another'),
        (('constraints', 0, 'bound_file'), {'name': 'x.py', 'sha256': '0'}, 'bound_file is another'),
        (('prompts',), None, 'it has another form'),
    ],
)
def test_a_certificate_that_was_rewritten_and_sealed_again_does_not_agree_with_its_costs(tmp_path, place, value, part):
    content = written(tmp_path)
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    assert holder[place[-1]] != value
    holder[place[-1]] = value
    (tmp_path / 'certificate.json').write_text(canonical(seal(content)), encoding='utf-8')
    assert part in fails(tmp_path / 'certificate.json')


def test_the_hash_of_the_content_is_one_that_other_programs_compute(tmp_path):
    written(tmp_path)
    content = json.loads((tmp_path / 'certificate.json').read_text(encoding='utf-8'))
    told = content.pop('sha256')
    text = json.dumps(content, indent=1, sort_keys=True) + '\n'
    assert told == hashlib.sha256(text.encode()).hexdigest()
    assert read((tmp_path / 'certificate.json').read_bytes()) == content


def test_words_and_picture_say_what_the_certificate_says(tmp_path):
    content = written(tmp_path, changed(MEAN, clip_costs=True))
    text = words.page(content)
    assert text.startswith(f'# Safety test: {content["verdict"]}\n')
    assert f'{content["constraints"][0]["value"]:.4g}' in text
    assert 'Costs are cut to [-10, 10]; 0 were.' in text
    assert 'That was not checked.' in text
    assert 'betting' in words.summary(content)
    assert 'taken to be normal' in words.page(written(tmp_path, NORMAL))
    failed = written(tmp_path, changed(MEAN, threshold=-5.0))
    assert failed['verdict'] == NOT_CERTIFIED
    assert 'That is no proof that the policy is unsafe.' in words.page(failed)
    picture = figure.draw(content)
    assert picture.startswith('<svg ')
    assert 'threshold 0<' in picture
    assert 'nan' not in picture


def test_costs_are_read_by_text_turns_hash_or_id(tmp_path):
    path = tmp_path / 'given.jsonl'
    rows = [('Is it safe?', 1), ('0123456789abcdef', 2.5), (17, -1), ('id-3', 0), (['Is it  safe?'], 3)]
    path.write_text('\n'.join(json.dumps({'prompt': p, 'cost': c}) for p, c in rows), encoding='utf-8')
    found = read_costs(path)
    assert len(found.names) == 4
    assert found.prompts[0] == found.prompts[1]  # the responses of a prompt come together
    assert found.costs == [[1.0], [3.0], [2.5], [-1.0], [0.0]]
    assert found.names[1:] == ['0123456789abcdef', '17', 'id-3']
    assert found.most_samples == 2
    path.write_text(found.text(), encoding='utf-8')
    assert read_costs(path) == found


@pytest.mark.parametrize(
    ('row', 'part'),
    [
        ('{"prompt": "a b", "cost": NaN}', 'line 2: cost must be a finite number, found nan'),
        ('{"prompt": "a b", "cost": "1"}', "found '1'"),
        ('{"prompt": "a b", "cost": true}', 'found True'),
        ('{"prompt": null, "cost": 1}', 'line 2: prompt must be a text, turns, or an id'),
        ('{"prompt": "a b"}', 'line 2: expected {"prompt": ..., "cost": number}, found prompt'),
        ('{"prompt": "a b", "cost": [1, 2]}', 'some rows have more costs than others'),
        ('{"prompt": ', 'line 2'),
    ],
)
def test_rows_without_a_cost_are_refused(tmp_path, row, part):
    path = tmp_path / 'given.jsonl'
    path.write_text('{"prompt": "one more", "cost": 1}\n' + row, encoding='utf-8')
    with pytest.raises(UserError) as error:
        read_costs(path)
    assert part in str(error.value)
    path.write_text('', encoding='utf-8')
    with pytest.raises(UserError, match='there are no costs'):
        read_costs(path)
