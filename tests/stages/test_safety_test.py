"""The safety test as a user runs it: what it certifies, what it refuses, and that anyone can check it."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from safe_align.checkpoint import seal, write_json
from safe_align.config import UserError
from safe_align.evaluate.certification.certificate import read
from safe_align.evaluate.certification.ledger import Ledger
from safe_align.evaluate.certification.scored_answers import _check_zero

STAGE = 'evaluate.safety_test'
HERE = ('--log_type', 'none', '--bf16', False, '--max_length', 96, '--max_new_tokens', 4)


@pytest.fixture
def prompts(starter, tmp_path) -> Path:
    """48 held-out prompts in a file of this test's own, so that its ledger is its own too."""
    return Path(shutil.copy(starter / 'test.jsonl', tmp_path / 'test.jsonl'))


@pytest.fixture
def call(chain, prompts) -> tuple:
    """The options of a test of the rate of unsafe responses; later ones override them."""
    return (
        STAGE, '--model_name_or_path', chain / 'ppo_lag', '--cost_model_name_or_path', chain / 'cost',
        '--datasets', f'jsonl:1:{prompts}', '--threshold', 0.5, *HERE,
    )  # fmt: skip


MEAN = ('--claim', 'mean_cost', '--range', -100, 100)


def content(directory: Path) -> dict:
    return read((directory / 'certificate.json').read_bytes())


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def rewritten(place: Path, **changes) -> Path:
    """A finished directory whose record says something else."""
    record = json.loads((place / 'safe_align.json').read_text(encoding='utf-8'))
    (place / 'manifest.json').unlink()
    (place / '.lock').unlink()
    write_json(place / 'safe_align.json', {**record, **changes})
    seal(place)
    return place


def test_the_chain_s_certificate_holds_what_the_arena_saw(chain):
    told = content(chain / 'safety_test')
    assert told['verdict'] == 'certified'
    with (chain / 'arena/table.csv').open(newline='', encoding='utf-8') as file:
        arena = [float(row['blue_cost']) for row in csv.DictReader(file)]
    found = rows(chain / 'safety_test/costs.jsonl')
    assert [row['cost'] for row in found if row['sample'] == 0] == pytest.approx(arena, abs=1e-6)
    (one,) = told['constraints']
    assert len(found) == 12
    means = [(a['cost'] + b['cost']) / 2 for a, b in zip(found[::2], found[1::2], strict=True)]
    assert one['costs'] == pytest.approx(means)
    record = json.loads((chain / 'ppo_lag/safe_align.json').read_text(encoding='utf-8'))
    assert {entry['hash'] for entry in told['lineage']} >= {parent['hash'] for parent in record['parents'].values()}
    assert [Path(entry['path']).name for entry in told['lineage'] if entry['num_prompts'] is None] == ['tiny']
    assert told['prompts']['proved_new']
    assert '# Safety test: certified' in (chain / 'safety_test/README.md').read_text(encoding='utf-8')
    assert len(rows(chain / 'ledger.jsonl')) == 1


def test_verify_sees_costs_bytes_and_models(ends, fails, chain, tmp_path):
    place = shutil.copytree(chain / 'safety_test', tmp_path / 'certified')
    path = place / 'certificate.json'
    assert ends(STAGE, '--verify', path) == (0, '')
    said = fails(STAGE, '--verify', path, '--model_name_or_path', chain / 'ppo')
    assert f'not valid: {chain / "ppo"} has another content' in said
    copy = shutil.copytree(chain / 'cost', tmp_path / 'moved/cost')
    assert ends(STAGE, '--verify', path, '--cost_model_name_or_path', copy) == (0, '')
    path.write_bytes(path.read_bytes().replace(b'certified', b'Certified', 1))
    assert 'not valid: its bytes are not those that were written' in fails(STAGE, '--verify', path)
    assert 'cannot be read' in fails(STAGE, '--verify', place / 'none.json')


def test_a_rate_is_tested_on_each_prompt_once_and_the_prompts_are_spent(ends, fails, call, prompts, tmp_path):
    code, said = ends(*call, '--threshold', 0.999)
    told = content(tmp_path / 'out')
    (one,) = told['constraints']
    assert code == (0 if one['holds'] else 3), said
    assert one['claim']['bound'] == 'clopper_pearson'
    assert (told['prompts']['num'], len(one['costs'])) == (48, 48)
    assert sum(one['costs']) == one['num_unsafe'] == sum(row['cost'] > 0 for row in rows(tmp_path / 'out/costs.jsonl'))
    ledger = prompts.with_name('test.jsonl.ledger')
    (line,) = rows(ledger)
    assert line['verdict'] == told['verdict']
    again = tmp_path / 'again'
    assert ends(*call, '--threshold', 0.999, '--output_dir', again)[0] == code  # the same test, not another look
    assert (again / 'costs.jsonl').read_bytes() == (tmp_path / 'out/costs.jsonl').read_bytes()
    assert len(rows(ledger)) == 1
    assert ends(*call, '--threshold', 0.999)[0] == code  # finished: says so
    for more in (('--threshold', 0.998), ('--threshold', 0.999, '--seed', 1), ('--threshold', 0.999, '--delta', 0.2)):
        code, said = ends(*call, *more, '--output_dir', tmp_path / 'other')
        assert code == 2
        assert f'48 of 48 prompts are spent: {ledger}, line 1' in said
        shutil.rmtree(tmp_path / 'other')


def test_no_solution_found_is_no_error_and_no_certificate_of_safety(ends, call, tmp_path):
    code, _ = ends(*call, *MEAN, '--threshold', -50)
    assert code == 3
    assert content(tmp_path / 'out')['verdict'] == 'no solution found'
    assert ends(STAGE, '--verify', tmp_path / 'out/certificate.json') == (0, '')
    assert ends(*call, *MEAN, '--threshold', -50)[0] == 3


def test_several_responses_of_a_prompt_are_one_number(ends, call, tmp_path):
    ends(*call, '--samples_per_prompt', 2, '--threshold', 0.99)
    (one,) = content(tmp_path / 'out')['constraints']
    assert one['claim']['bound'] == 'betting'
    assert len(one['costs']) == 48
    assert set(one['costs']) <= {0.0, 0.5, 1.0}


def test_an_anytime_bound_may_be_looked_at_again_with_more_prompts_behind(ends, call, prompts, tmp_path):
    lines = prompts.read_text(encoding='utf-8').splitlines(keepends=True)
    anytime = (*MEAN, '--bound', 'betting_anytime', '--threshold', 90)
    prompts.write_text(''.join(lines[:20]), encoding='utf-8')
    assert ends(*call, *anytime)[0] == 0
    prompts.write_text(''.join(lines), encoding='utf-8')
    assert ends(*call, *anytime, '--output_dir', tmp_path / 'more')[0] == 0
    values = [content(tmp_path / name)['constraints'][0]['value'] for name in ('out', 'more')]
    assert values[1] < values[0]
    code, said = ends(*call, *anytime, '--seed', 5, '--output_dir', tmp_path / 'other')
    assert code == 2
    assert 'an anytime bound allows the same policy and settings alone' in said


def test_two_processes_find_the_same_costs_in_the_same_order(stages, ends, call, tmp_path):
    code = ends(*call, '--threshold', 0.999)[0]
    told = [*call[1:], '--threshold', 0.999, '--output_dir', tmp_path / 'two']
    processes = stages.launch(2, f'safe_align.{STAGE}', *told)
    assert [process.wait() for process in processes] == [code, code], processes[0].said
    one, two = (rows(tmp_path / name / 'costs.jsonl') for name in ('out', 'two'))
    assert [row['prompt'] for row in two] == [row['prompt'] for row in one]
    assert [row['cost'] for row in two] == pytest.approx([row['cost'] for row in one], abs=1e-5)


def test_all_of_several_constraints_must_hold(ends, call, chain, tmp_path):
    two = ('--cost_model_name_or_path', chain / 'cost', chain / 'cost')
    assert ends(*call, *two, *MEAN, '--threshold', 90, -50)[0] == 3
    told = content(tmp_path / 'out')
    assert [one['holds'] for one in told['constraints']] == [True, False]
    assert ends(STAGE, '--verify', tmp_path / 'out/certificate.json') == (0, '')


def test_which_of_several_constraints_hold(ends, fails, call, chain, tmp_path):
    two = ('--cost_model_name_or_path', chain / 'cost', chain / 'cost')
    which = (*call, *two, *MEAN, '--constraints', 'which')
    candidates = ('--candidates', chain / 'ppo', chain / 'ppo_lag')
    assert '--constraints which and --candidates: choose one' in fails(*which, *candidates, '--threshold', 90, -50)
    assert ends(*which, '--threshold', 90, -50)[0] == 0
    told = content(tmp_path / 'out')
    assert [(one['holds'], one['level']) for one in told['constraints']] == [(True, 0.05), (False, 0.1)]
    assert told['verdict'] == 'certified'
    assert 'certified, 1 of 2 constraints' in (tmp_path / 'out/README.md').read_text(encoding='utf-8')
    assert ends(STAGE, '--verify', tmp_path / 'out/certificate.json') == (0, '')


def test_candidates_are_tested_in_their_order_until_one_fails(ends, call, chain, prompts, tmp_path):
    three = ('--candidates', chain / 'finetune', chain / 'ppo', chain / 'ppo_lag')
    assert ends(*call, *three, *MEAN, '--threshold', 90)[0] == 0
    told = content(tmp_path / 'out')
    assert told['policy']['path'] == str(chain / 'ppo_lag')
    assert told['sequence'] == {'number': 3, 'order': [str(path) for path in three[1:]]}
    assert told == read((tmp_path / 'out/certificate-3.json').read_bytes())
    assert len({(tmp_path / f'out/costs-{n}.jsonl').read_bytes() for n in (1, 2, 3)}) == 3
    for name in ('certificate.json', 'certificate-1.json', 'certificate-2.json'):
        assert ends(STAGE, '--verify', tmp_path / 'out' / name) == (0, '')
    (tmp_path / 'out/certificate-2.json').write_bytes((tmp_path / 'out/certificate-1.json').read_bytes())
    said = ends(STAGE, '--verify', tmp_path / 'out/certificate.json')[1]
    assert 'certificate-2.json is not of a policy that was certified before this one' in said
    assert 'number 3 of an order' in (tmp_path / 'out/README.md').read_text(encoding='utf-8')
    (line,) = rows(prompts.with_name('test.jsonl.ledger'))
    assert line['verdict'] == 'certified, certified, certified'


def test_no_candidate_is_tested_behind_one_that_fails(ends, call, chain, tmp_path):
    two = ('--candidates', chain / 'finetune', chain / 'ppo_lag')
    assert ends(*call, *two, *MEAN, '--threshold', -50)[0] == 3
    assert {path.name for path in (tmp_path / 'out').glob('c*')} == {
        'certificate.json', 'certificate-1.json', 'costs-1.jsonl', 'costs.svg'
    }  # fmt: skip


def test_a_claim_must_hold_on_every_kind_of_prompt(ends, fails, call, prompts, tmp_path):
    lines = rows(prompts)
    for number, row in enumerate(lines):
        row['kind'] = 'red' if number < 40 else 'benign'
    prompts.write_text(''.join(json.dumps(row) + '\n' for row in lines), encoding='utf-8')
    assert '8 prompts of --strata benign are too few' in fails(*call, '--threshold', 0.06, '--strata', 'kind')
    assert ends(*call, *MEAN, '--threshold', 90, '--strata', 'kind')[0] == 0
    told = content(tmp_path / 'out')
    assert [(one['stratum'], len(one['costs'])) for one in told['constraints']] == [('red', 40), ('benign', 8)]
    assert ends(STAGE, '--verify', tmp_path / 'out/certificate.json') == (0, '')
    code, said = ends(*call, *MEAN, '--threshold', 90, '--output_dir', tmp_path / 'other')
    assert code == 2
    assert '48 of 48 prompts are spent' in said
    shares = ('--strata', 'kind', '--strata_weights', 'red=0.25', 'benign=0.75')
    mixture = ends(*call, *MEAN, '--threshold', 90, *shares, '--ledger', tmp_path / 'l', '--output_dir', tmp_path / 'm')
    assert mixture[0] == 0
    (one,) = content(tmp_path / 'm')['constraints']
    assert one['mean'] == pytest.approx(0.25 * kind_mean(told, 'red') + 0.75 * kind_mean(told, 'benign'))
    assert ends(STAGE, '--verify', tmp_path / 'm/certificate.json') == (0, '')
    assert 'row 1: says no kind' in ends(*call, '--strata', 'colour', '--output_dir', tmp_path / 'colour')[1]


def kind_mean(told: dict, kind: str) -> float:
    (mean,) = [one['mean'] for one in told['constraints'] if one['stratum'] == kind]
    return mean


def test_costs_given_need_no_model(ends, tmp_path):
    path = tmp_path / 'given.jsonl'
    given = [{'prompt': n, 'cost': -1 if n % 20 else 1} for n in range(200)]
    path.write_text(''.join(json.dumps(row) + '\n' for row in given), encoding='utf-8')
    assert ends(STAGE, '--costs', path, '--threshold', 0.1)[0] == 0
    told = content(tmp_path / 'out')
    assert (told['constraints'][0]['num_unsafe'], told['policy'], told['prompts']['proved_new']) == (10, None, False)
    assert ends(STAGE, '--verify', tmp_path / 'out/certificate.json') == (0, '')


def test_costs_given_need_neither_torch_nor_other_heavy_imports(tmp_path):
    (tmp_path / 'given.jsonl').write_text(''.join(f'{{"prompt": {n}, "cost": -1}}\n' for n in range(50)))
    code = (
        'import sys; from safe_align.config import parse; from safe_align.evaluate import safety_test; '
        'verdict = safety_test.main(parse(safety_test.SafetyTestConfig)); '
        'heavy = ("torch", "transformers", "datasets", "scipy.stats", "matplotlib"); '
        'print(verdict, [name for name in heavy if name in sys.modules])'
    )
    options = ('--costs', tmp_path / 'given.jsonl', '--threshold', '0.05', '--output_dir', tmp_path / 'out')
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, '-c', code, *map(str, options)], capture_output=True, text=True, check=True, cwd=root
    )
    assert run.stdout.splitlines()[-1] == '0 []'
    record = json.loads((tmp_path / 'out/safe_align.json').read_text(encoding='utf-8'))
    assert (record['versions']['torch'], record['device']) == (torch.__version__, 'cpu')


def test_a_plan_says_how_many_prompts(ends, fails, capsys, monkeypatch):
    printed = []
    monkeypatch.setattr('builtins.print', lambda *args, **_: printed.append(args[0]))
    assert ends(STAGE, '--plan', 0.02, '--threshold', 0.05)[0] == 0
    assert printed[0].startswith('628 prompts: ')
    mean = (STAGE, '--plan', 0.2, '--claim', 'mean_cost', '--threshold', 0, '--delta', 0.05)
    assert ends(*mean, '--plan_sd', 1, '--bound', 'student_t', '--assume_normal')[0] == 0
    assert printed[1].startswith('216 prompts: ')
    assert ends(*mean, '--plan_sd', 1, '--range', -10, 10)[0] == 0
    assert int(printed[2].split()[0]) > 216
    assert 'by betting, by simulation of a beta law with standard deviation 1 on [-10, 10] (delta 0.05)' in printed[2]
    monkeypatch.undo()
    ranged = (*mean, '--range', -10, 10)
    assert '--plan_sd is missing' in fails(*ranged)
    assert '--range: give the least' in fails(*mean)
    assert 'no costs in [-10, 10] have the mean -0.2' in fails(*ranged, '--plan_sd', 10)
    assert '--bound hoeffding: there is a plan for' in fails(*ranged, '--bound', 'hoeffding')


@pytest.mark.parametrize(
    ('more', 'part'),
    [
        (('--delta', 0), '--delta 0.0: expected a number between 0 and 1'),
        (('--fail_prob', 1.5), '--delta 1.5'),
        (('--threshold', 0.01), '48 prompts are too few for --bound clopper_pearson'),
        (('--threshold', 1.5), '--threshold 1.5'),
        (('--threshold', 0.1, 0.2), '--threshold: 2 numbers for 1 cost models'),
        (('--bound', 'mean'), '--bound mean: has no margin'),
        (('--bound', 'clopper_pearson', '--samples_per_prompt', 2), 'takes one response a prompt'),
        (('--claim', 'mean_cost'), '--range: give the least and the largest cost'),
        (('--claim', 'mean_cost', '--bound', 'student_t'), '--assume_normal takes that on you'),
        ((*MEAN[:2], '--range', 1), '--range 1.0: expected two numbers'),
        (('--range', 0, 1), '--range: is for --claim mean_cost'),
        (('--strata_weights', 'a=1'), '--strata_weights: needs --strata'),
        (('--costs', 'x.jsonl'), '--costs and --datasets: choose one'),
    ],
)
def test_what_cannot_be_tested_is_refused(fails, call, more, part):
    assert part in fails(*call, *more)


def test_flags_that_are_needed_are_named(fails, call):
    assert '--threshold is missing' in fails(STAGE, '--costs', 'x.jsonl')
    assert '--model_name_or_path is missing' in fails(STAGE, '--threshold', 1)


def test_costs_outside_the_range_are_refused_or_cut_and_the_certificate_says_so(ends, call, tmp_path):
    narrow = (*MEAN[:2], '--range', -1e-9, 1e-9, '--threshold', 9e-10)
    code, said = ends(*call, *narrow)
    assert code == 2
    assert '--range -1e-09 1e-09: 48 of 48 costs are outside, the first of them ' in said
    assert not (tmp_path / 'out/certificate.json').exists()
    ends(*call, *narrow, '--clip_costs', '--overwrite')
    (one,) = content(tmp_path / 'out')['constraints']
    assert one['num_clipped'] == 48
    assert '48 were. The mean is of these.' in (tmp_path / 'out/README.md').read_text(encoding='utf-8')


def test_costs_that_are_no_numbers_are_refused(fails, tmp_path):
    path = tmp_path / 'given.jsonl'
    path.write_text('{"prompt": 1, "cost": 0.5}\n{"prompt": 2, "cost": NaN}\n', encoding='utf-8')
    assert f'{path}, line 2: cost must be a finite number, found nan' in fails(
        STAGE, '--costs', path, '--threshold', 0.9
    )
    assert not path.with_name('given.jsonl.ledger').exists()


def test_prompts_that_the_line_has_seen_are_counted(fails, call, chain, starter):
    said = fails(*call, '--datasets', f'jsonl:1:{starter / "train.jsonl"}')
    assert '24 of 264 prompts are not new: ' in said
    said = fails(*call, '--datasets', f'jsonl:1:{starter / "train.jsonl"}', '--model_name_or_path', chain / 'finetune')
    assert '24 of 264 prompts are not new: ' in said


def test_a_ledger_that_another_run_holds_is_refused(fails, call, prompts):
    ledger = prompts.with_name('test.jsonl.ledger')
    with Ledger(ledger):
        assert f'--ledger {ledger}: another run holds it' in fails(*call)
    assert ledger.read_bytes() == b''


def test_a_cost_model_without_a_zero_has_no_rate(fails, ends, call, chain, tmp_path):
    unsigned = rewritten(shutil.copytree(chain / 'cost', tmp_path / 'unsigned'), has_sign_terms=False)
    said = fails(*call, '--cost_model_name_or_path', unsigned)
    assert f'{unsigned}: it was trained without the sign terms' in said
    unknown = shutil.copytree(chain / 'cost', tmp_path / 'unknown')
    for name in ('safe_align.json', 'manifest.json', '.lock'):
        (unknown / name).unlink()
    said = fails(*call, '--cost_model_name_or_path', unknown)
    assert 'nothing says that it was trained with the sign terms' in said
    assert ends(*call, '--cost_model_name_or_path', unsigned, *MEAN, '--threshold', 90)[0] == 0


@pytest.mark.parametrize(('score_type', 'part'), [('cost', ''), (None, 'nothing says that it was trained with')])
def test_a_cost_model_of_safe_rlhf_has_a_zero(tmp_path, score_type, part):
    (tmp_path / 'config.json').write_text(
        json.dumps({'architectures': ['LlamaForScore'], 'score_type': score_type}), encoding='utf-8'
    )
    (tmp_path / 'model.safetensors').touch()
    with pytest.raises(UserError, match=part) if part else contextlib.nullcontext():
        _check_zero(str(tmp_path), False)


def test_models_in_the_wrong_place_are_refused(fails, call, chain):
    said = fails(*call, '--cost_model_name_or_path', chain / 'reward')
    assert 'a reward model, where a cost model was expected' in said
    assert 'a cost model, where a policy model was expected' in fails(*call, '--model_name_or_path', chain / 'cost')


def test_a_parent_that_is_gone_is_named(fails, call, chain, tmp_path):
    record = json.loads((chain / 'finetune/safe_align.json').read_text(encoding='utf-8'))
    (option,) = record['parents']
    gone = {option: {**record['parents'][option], 'path': str(tmp_path / 'gone')}}
    policy = rewritten(shutil.copytree(chain / 'finetune', tmp_path / 'sft'), parents=gone)
    said = fails(*call, '--model_name_or_path', policy)
    assert f'its parent {tmp_path / "gone"} is not there' in said


def test_a_data_set_without_a_file_needs_a_ledger(fails, call, starter):
    two = ('--datasets', f'jsonl:1:{starter / "test.jsonl"}', f'jsonl:1:{starter / "../starter/test.jsonl"}')
    assert 'is not one local file; give --ledger' in fails(*call, *two)


def test_a_monitor_raises_an_alarm_once_the_costs_have_shown_it(ends, fails, monkeypatch, capsys):
    told = []
    monkeypatch.setattr('builtins.print', lambda text, **_: told.append(text))
    watch = (STAGE, '--monitor', '--threshold', 0.1)
    monkeypatch.setattr('sys.stdin', ['-1\n', '{"cost": 2.5}\n', '\n', *['3\n'] * 30])
    assert ends(*watch)[0] == 3
    assert told[-1].startswith('alarm after ')
    monkeypatch.setattr('sys.stdin', ['-1\n'] * 250)
    assert ends(*watch)[0] == 0
    assert [line.split(':')[0] for line in told[1:]] == ['after 43 costs', '100 costs', '200 costs']
    monkeypatch.undo()
    monkeypatch.setattr('sys.stdin', ['-1\n', 'harmless\n'])
    assert 'line 2: a number or {"cost": number} was expected, found \'harmless\'' in fails(*watch)
    monkeypatch.setattr('sys.stdin', ['12\n'])
    assert '--range -10 10: 1 of 1 costs are outside' in fails(*watch, *MEAN[:2], '--range', -10, 10)


def test_labels_make_it_a_claim_about_the_truth(ends, fails, tmp_path):
    """A cost model that misses half of the harm, 400 prompts, half of them labelled."""
    costs, labels = tmp_path / 'given.jsonl', tmp_path / 'labels.jsonl'
    harmful = [n % 20 == 0 for n in range(400)]
    seen = [harm and n % 40 == 0 for n, harm in enumerate(harmful)]
    costs.write_text(
        ''.join(json.dumps({'prompt': n, 'cost': 1 if one else -1}) + '\n' for n, one in enumerate(seen)),
        encoding='utf-8',
    )
    labelled = [n for n in range(400) if n // 40 % 2]
    labels.write_text(
        ''.join(json.dumps({'prompt': n, 'label': 2 if harmful[n] else -2}) + '\n' for n in labelled), encoding='utf-8'
    )
    call = (STAGE, '--costs', costs, '--threshold', 0.045)
    assert ends(*call, '--output_dir', tmp_path / 'first')[0] == 0  # what the cost model says is 1 in 40
    audit = (*call, '--labels', labels, '--output_dir', tmp_path / 'audit')
    assert ends(*audit)[0] == 3  # the truth is 1 in 20
    (one,) = content(tmp_path / 'audit')['constraints']
    assert one['audit']['gap'] == pytest.approx(0.025)
    assert one['audit']['mean_label'] == pytest.approx(0.05)
    assert one['value'] > 0.05
    assert ends(STAGE, '--verify', tmp_path / 'audit/certificate.json') == (0, '')
    assert 'above the cost model' in (tmp_path / 'audit/README.md').read_text(encoding='utf-8')
    again = audit[:-2]
    assert 'prompts are spent' in fails(*again, '--threshold', 0.3)
    assert '--labels go with betting' in fails(*again, '--bound', 'hoeffding')
    labels.write_text('{"prompt": 1, "label": 1}\n', encoding='utf-8')
    assert '1 of 400 prompts have a label' in fails(*again)
    labels.write_text('{"prompt": "a b", "label": 1}\n', encoding='utf-8')
    assert '1 of 1 prompts are not among those of the test' in fails(*again)
