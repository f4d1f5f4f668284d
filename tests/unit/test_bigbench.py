"""BIG-bench's tasks, prompts, metrics and log-probabilities, with numbers worked by hand."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from bigbench_files import COLOURS, EMBEDDED, HEAD, LIKELY, SUMS, YES, fill, write
from transformers import AutoModelForCausalLM

from safe_align.config import UserError
from safe_align.engine import Placement
from safe_align.evaluate.statistics import Estimate, of_sums
from safe_align.evaluate.tasks.encoding import Encoder, log_probs
from safe_align.evaluate.tasks.metrics import Sample, measure
from safe_align.evaluate.tasks.prompts import answer_in, questions
from safe_align.evaluate.tasks.results import score_of, with_wholes
from safe_align.evaluate.tasks.schema import read
from safe_align.evaluate.tasks.task import Task, find
from safe_align.evaluate.tasks.text import check_installed
from safe_align.models.loading import load_policy, load_tokenizer
from safe_align.placing import make_engine

LN = math.log


@pytest.fixture
def task(tmp_path):
    """`task(COLOURS)` is the task that a file with this in it is read as."""
    return lambda data: read(write(tmp_path / 'one', data))


def values(metric: str, samples: list[Sample]) -> dict[str, float]:
    return {name: one.value for name, one in measure(metric, samples).items()}


def test_a_task_has_what_its_file_says_and_the_defaults_of_bigbench(task):
    colours, sums = task(COLOURS), task(SUMS)
    assert [one.input for one in colours.examples] == ['sky', 'grass', 'dusk']  # the double is left out
    assert [one.targets for one in colours.examples] == [['blue', 'azure'], ['green'], ['red']]
    assert colours.range == (pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3), 1)
    assert (sums.input_prefix, sums.output_prefix, sums.separator, sums.prefix) == ('\nQ: ', '\nA: ', '\n', '')
    assert (sums.output_regex, sums.stop_string) == (r'[^\.\?\!\;\n]+', None)
    assert sums.range == (0, 1)  # BIG-bench does not read the file's own
    assert [one.targets for one in task(YES).examples] == [['yes'], ['no'], ['yes'], ['no'], ['yes']]


def test_prompts_are_those_of_bigbench(task):
    first, grass, dusk = questions(task(COLOURS), 0, 42)
    assert first.input == 'Answer.\n\nI: sky\n- azure\n- blue\n- red\nO: '
    assert grass.input == 'Answer.\n\nI: grass\n- pink\n- green\nO: '
    assert dusk.scores == {'red': 0.75, 'grey': 0.25}
    assert questions(task(YES), 0, 42)[1].input == '\nQ: Is 1 even?\nA: '
    one, *_ = questions(task(SUMS), 1, 42)
    assert one.input == '\nQ: 1 + 1\nA: 2\n\nQ: 2 + 2\nA: '


def test_max_examples_draws_some_and_solved_examples_are_others(task):
    sums = task(SUMS)
    assert len(questions(sums, 0, 1, 2)) == 2
    for one in questions(sums, 3, 1):
        shown = [line for line in one.input.split('\n') if line.startswith('Q: ')]
        assert sorted(shown) == [f'Q: {n} + {n}' for n in range(1, 5)]
    assert questions(sums, 3, 1) == questions(sums, 3, 1) != questions(sums, 3, 2)
    with pytest.raises(UserError, match=r'--num_shots 4: .* has 4 distinct examples'):
        questions(sums, 4, 1)


def test_parts_come_from_the_file_or_from_folders(task, tmp_path):
    assert [leaf.name for leaf in task(EMBEDDED).leaves()] == ['both:colours', 'both:sums']
    root = fill(tmp_path / 'clone')
    assert [leaf.name for leaf in read(find('folders', str(root))).leaves()] == ['folders:again', 'folders:yes']
    assert read(find('folders/b', str(root / 'bigbench/benchmark_tasks'))).name == 'yes'


def test_a_task_that_is_not_there_is_told_with_its_nearest(tmp_path):
    root = str(fill(tmp_path / 'clone'))
    for name, said in {
        'colors': r'no such task in .* \(did you mean colours\?\)', 'programmed': r'a program \(task.py\) and no task',
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=f'--task_name {name}: {said}'):
            find(name, root)
    with pytest.raises(UserError, match='nor bigbench/benchmark_tasks'):
        find('x', str(tmp_path / 'clone/bigbench/benchmark_tasks/sums'))
    with pytest.raises(UserError, match='no such directory'):
        find('x', str(tmp_path / 'nowhere'))
    with pytest.raises(UserError, match='give --task_dir, a clone of BIG-bench, or install bigbench'):
        find('x', None)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'name': None}, 'name: text was expected, not NoneType'),
        ({'canary': 1}, 'canary: text was expected, not int'),
        ({'examples': {}}, 'examples: a list was expected, not dict'),
        ({'examples': []}, 'examples: there are none'),
        ({'examples': [{'target': 'x'}]}, r'examples\[0\]: input: missing'),
        ({'examples': ['x']}, r'examples\[0\]: example: a mapping was expected, not str'),
        ({'examples': [{'input': 'x', 'target': 'y'}]}, r'target_scores: missing, which a metric of choices needs'),
        ({'examples': [{'input': 'x', 'target_scores': {'a': 1}}]}, r'examples\[0\]: target: missing'),
        ({'examples': [{'input': 'x', 'target': 'a', 'target_scores': {'a': '1'}}]}, 'a finite number is missing'),
        ({'examples': [{'input': 'x', 'target_scores': {'a': math.nan, 'b': 1}}]}, 'a finite number is missing'),
        ({'examples': [{'input': 'x', 'target_scores': {'a': 10**400, 'b': 1}}]}, 'a finite number is missing'),
        ({'examples': [{'input': '\ud800', 'target_scores': {'a': 1}}]}, r"half of a surrogate pair, '.ud800'"),
        ({'examples': [{'input': 'x', 'target': 'a', 'target_scores': {'a': 1}}]}, 'guessing gets 1 of 1'),
        ({'metrics': 'bleu'}, 'metrics: a list was expected, not str'),
        ({'metrics': ['exact_match']}, r"'exact_match' is none of BIG-bench \(did you mean exact_str_match\?\)"),
        ({'preferred_score': 'rouge'}, "preferred_score: 'rouge' is none of multiple_choice_grade, "),
        ({'metrics': ['bleurt'], 'preferred_score': 'bleurt'}, "preferred_score: 'bleurt' is not computed here"),
        ({'output_regex': '('}, 'output_regex: missing '),
        ({'output_regex': 'a{99999999999}'}, 'output_regex: the repetition number is too large'),
        ({'output_regex': '(a)(b)'}, 'output_regex: has 2 groups'),
        ({'subtasks': [COLOURS, COLOURS]}, 'subtasks: two have the same name'),
        ({'metrics': ['multiple_choice_grade', 'exact_str_match', 'macro_f1']}, 'macro_f1 needs one choice with 1'),
    ],
)  # fmt: skip
def test_a_file_that_breaks_the_schema_is_told_with_its_key(changes, said, task):
    with pytest.raises(UserError, match=rf'one/task.json.*{said}'):
        task({**COLOURS, **changes})


@pytest.mark.parametrize(
    ('data', 'said'),
    [
        ({**HEAD, 'name': 'x'}, 'examples: missing, and there are no subtasks'),
        ({**SUMS, 'examples': [{'input': '1', 'target': ['1', '2']}]}, 'numeric_match.* needs one, not 2'),
        ({**LIKELY, 'examples': [{'input': '1', 'target': ' '}]}, 'target: is empty'),
        ({**YES, 'examples': [{'input': '1', 'target_scores': {'a': 0, 'b': 0}}]}, 'target_scores: macro_f1 needs'),
        ({**YES, 'metrics': ['multiple_choice_grade'], 'preferred_score': 'multiple_choice_grade',
          'examples': [{'input': '1', 'target_scores': {'a': 1, 'b': 1}}]}, 'no choice is better'),
        ([], 'a mapping with the keys of a task was expected'),
    ],
)  # fmt: skip
def test_examples_that_their_metrics_cannot_use_are_refused(data, said, task):
    with pytest.raises(UserError, match=said):
        task(data)


def test_a_file_that_is_no_json_or_not_there_is_told(tmp_path):
    (tmp_path / 'task.json').write_text('{')
    with pytest.raises(UserError, match='not JSON'):
        read(tmp_path / 'task.json')
    (tmp_path / 'task.json').write_text('[' * 100_000)
    with pytest.raises(UserError, match='not JSON: maximum recursion depth'):
        read(tmp_path / 'task.json')
    with pytest.raises(UserError, match='No such file'):
        read(tmp_path / 'other.json')


def test_an_answer_ends_with_the_stop_string_and_is_the_first_match():
    plain = Task('t', 'p')
    assert answer_in('\nx\ny', Task('t', 'p', stop_string='\n')) == '\nx\ny'  # as in BIG-bench: not at the beginning
    assert answer_in('x y\nz', Task('t', 'p', stop_string='\n')) == 'x y\n'
    assert answer_in('x y. z', Task('t', 'p', output_regex=r'[^\.]+')) == 'x y'
    assert answer_in('= -12.', Task('t', 'p', output_regex=r'([-+]?\d+)[.]?$')) == '-12'
    assert answer_in('a', Task('t', 'p', output_regex=r'\d')) == ''
    assert answer_in(' a', plain) == ' a'


def test_grades_are_scores_of_the_likeliest_choice():
    samples = [
        Sample([], {'a': 0, 'b': 1}, [LN(0.1), LN(0.3)]),  # b, with probability 3/4
        Sample([], {'a': 0.25, 'b': 0.75}, [LN(0.2), LN(0.2 / 4)]),  # a, with 4/5
        Sample([], {'a': 1, 'b': 1, 'c': 0}, [-3, -1, -2]),
    ]
    assert values('multiple_choice_grade', samples)['multiple_choice_grade'] == pytest.approx((1 + 0.25 + 1) / 3)
    grade = measure('multiple_choice_grade', samples[:1] * 4)['multiple_choice_grade']
    assert grade[:1] + grade[2:] == (1, 1)  # Wilson's interval, of 4 of 4
    assert grade.low == pytest.approx(0.510109, abs=1e-6)


def test_ties_are_broken_by_a_hash_and_not_by_place():
    picks = {Sample([], dict.fromkeys('ab', 0), [-float(n), -float(n)], is_absolute=True).chosen for n in range(1, 9)}
    assert picks == {0, 1}


def test_calibration_is_brier_s_score_a_choice_and_the_gap_of_accuracy_and_confidence():
    samples = [
        Sample([], {'a': 0, 'b': 1}, [LN(0.1), LN(0.3)]),  # 1/4, 3/4: right
        Sample([], {'a': 1, 'b': 0}, [LN(0.1), LN(0.3)]),  # the same: wrong
        Sample([], {'a': 0.4, 'b': 0.4}, [LN(0.9), LN(0.1)]),  # shares 1/2, 1/2
    ]
    told = values('multiple_choice_grade', samples)
    brier = 2 * 0.25**2 + 2 * 0.75**2 + (0.5 * 0.1**2 + 0.5 * 0.9**2) * 2
    assert told['calibration_multiple_choice_brier_score'] == pytest.approx(brier / 6)
    # 3/4 is in the bucket from 11/15 to 12/15, where 1 of 2 is right; 0.9 in that from 13/15, and right
    assert told['expected_calibration_error'] == pytest.approx((2 * abs(0.5 - 0.75) + abs(1 - 0.9)) / 3)
    certain = [Sample([], {'a': 1, 'b': 0}, [0, -1e9])]
    assert values('expected_calibration_error', certain) == {'expected_calibration_error': 0}


def test_weighted_probabilities_and_their_logarithms():
    samples = [Sample([], {'a': 0.5, 'b': 2}, [LN(0.1), LN(0.3)]), Sample([], {'a': 1}, [LN(0.5)])]
    assert values('weighted_probabilities', samples)['weighted_probabilities'] == pytest.approx((0.65 + 0.5) / 2)
    expected = (0.5 * LN(0.1) + 2 * LN(0.3) + LN(0.5)) / 2
    assert values('weighted_log_probabilities', samples)['weighted_log_probabilities'] == pytest.approx(expected)


def test_macro_f1_is_a_mean_over_labels():
    right, chosen = ['y', 'y', 'n', 'n', 'n'], ['y', 'n', 'n', 'n', 'm']
    samples = [
        Sample([], {label: int(label == one) for label in 'ynm'}, [float(label == other) for label in 'ynm'])
        for one, other in zip(right, chosen, strict=True)
    ]
    # y: 2 * 1 / (2 + 1); n: 2 * 2 / (3 + 3); m: 0, chosen and never right
    assert values('macro_f1', samples) == {'macro_f1': pytest.approx((2 / 3 + 2 / 3 + 0) / 3)}


def test_texts_that_match():
    samples = [
        Sample(['Yes', 'yes'], response='yes'),
        Sample(['No'], response=' no '),
        Sample(['a b c'], response='a c'),
    ]
    assert values('exact_str_match', samples)['exact_str_match'] == pytest.approx(1 / 3)
    assert values('case_insensitive_str_match', samples)['case_insensitive_str_match'] == pytest.approx(2 / 3)
    assert values('sequence_f1', samples)['sequence_f1'] == pytest.approx(100 * (0 + 0 + 1 / 3) / 3)


@pytest.mark.parametrize(
    ('response', 'target', 'matches'),
    [('11', '10', 1), ('11.01', '10', 0), ('9', '10', 1), ('.1', '0', 1), ('ten', '10', 0), ('10', 'ten', 0),
     ('nan', '1', 0), ('5', '-1', 1)],
)  # fmt: skip
def test_numbers_match_within_a_tenth_of_the_target(response, target, matches):
    samples = [Sample([target], response=response)]
    assert values('numeric_match_with_0_1_relative_error', samples) == {
        'numeric_match_with_0_1_relative_error': matches
    }


def test_log_likelihoods_are_of_words_and_characters_too_unless_there_are_several_targets():
    samples = [Sample(['ab cd'], target_log_probs=[-10.0]), Sample(['x'], target_log_probs=[-4.0])]
    assert values('log_likelihood', samples) == {
        'log_likelihood': -7, 'log_likelihood_per_word': -4.5, 'log_likelihood_per_char': -3,
    }  # fmt: skip
    several = [Sample(['a', 'b'], target_log_probs=[LN(0.1), LN(0.3)]), Sample(['a'], target_log_probs=[LN(0.5)])]
    assert values('log_likelihood', several) == {'log_likelihood': pytest.approx((LN(0.4) + LN(0.5)) / 2)}


def test_bleu_is_of_all_responses_together():
    pytest.importorskip('sacrebleu')
    samples = [
        Sample(['the cat sat on a mat'], response='the cat sat on the mat'),  # 5/6, 3/5, 2/4, 1/3 of its n-grams
        Sample(['x', 'a b c d'], response='a b c d'),  # 4/4, 3/3, 2/2, 1/1
    ]
    assert values('bleu', samples[:1])['bleu'] == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert values('bleu', samples)['bleu'] == pytest.approx(100 * (9 / 10 * 6 / 8 * 4 / 6 * 2 / 4) ** 0.25)
    short = [Sample(['a b c d e f'], response='a b c d')]  # a brevity penalty of exp(1 - 6/4)
    assert values('bleu', short)['bleu'] == pytest.approx(100 * math.exp(-0.5))
    assert values('bleu', [Sample(['x'], response='')])['bleu'] == 0


def test_rouge_is_that_with_the_best_target():
    pytest.importorskip('rouge_score')
    samples = [Sample(['a dog', 'the cat'], response='the cat sat'), Sample(['x'], response='y')]
    # with 'the cat': 2 of 3 words and all of the target's; 1 of 2 pairs and the target's only one
    expected = {'rouge1': 80 / 2, 'rouge2': 100 * (2 / 3) / 2, 'rougeLsum': 80 / 2}
    assert values('rouge', samples) == pytest.approx(expected)


def test_a_package_that_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"here: metrics: bleu needs sacrebleu; pip install 'safe_align\[bigbench\]'"):
        check_installed(['exact_str_match', 'bleu'], 'here')


def test_the_jackknife_of_a_mean_is_students_interval_and_of_one_there_is_none():
    estimate = of_sums(lambda sums: sums[0] / sums[1], [[value, 1] for value in (1, 2, 3, 6)])
    half = 3.182446305 * math.sqrt(14 / 3 / 4)  # t at 0.975 with 3 degrees; deviations -2, -1, 0, 3
    assert estimate == pytest.approx((3, 3 - half, 3 + half))
    assert math.isnan(of_sums(lambda sums: sums[0], [[1]]).low)


def test_wholes_are_means_of_their_parts(task):
    both = task(EMBEDDED)
    colours, sums = both.leaves()
    counts = {'num_questions': 3, 'num_cut': 0, 'num_empty': 0}
    graded = {'multiple_choice_grade': Estimate(0.8, 0.7, 0.9), 'exact_str_match': Estimate(0.5, 0.1, 0.9)}
    scores = {
        ('both:colours', 0): score_of(colours, 0, counts, graded),
        ('both:sums', 0): score_of(sums, 0, counts, {'exact_str_match': Estimate(0.1, 0.1, 0.4)}),
    }
    *parts, whole = with_wholes(both, scores, [0])
    low = 5 / 9
    assert parts[0].as_bigbench()['score_dict']['normalized_aggregate_score'] == pytest.approx(
        100 * (0.8 - low) / (1 - low)
    )
    told = whole.as_bigbench()
    assert (told['preferred_score'], told['low_score'], told['high_score']) == ('normalized_aggregate_score', 0, 100)
    assert told['score_dict']['multiple_choice_grade'] == pytest.approx(0.8)
    assert told['score_dict']['exact_str_match'] == pytest.approx(0.3)
    assert told['score_dict']['normalized_aggregate_score'] == pytest.approx((100 * (0.8 - low) / (1 - low) + 10) / 2)
    assert whole.estimates['exact_str_match'][1:] == pytest.approx((0.3 - 0.4 / 2, 0.3 + 0.5 / 2))  # 3, 4, 5
    assert whole.counts['num_questions'] == 6


@pytest.fixture(scope='module')
def tokenizer(tiny):
    return load_tokenizer(str(tiny), '--model')


TEXTS = [('A common beginning. Q: one\nA: ', ['yes', 'no', 'no, not at all']), ('A common beginning. Q: ', ['', 'x'])]


def test_choices_have_the_log_probabilities_of_a_plain_forward_each_whatever_the_micro_batches(tiny, tokenizer):
    encoder = Encoder(tokenizer, 96)
    asked = [encoder.asked(*one) for one in TEXTS]
    plain = AutoModelForCausalLM.from_pretrained(tiny)
    expected = []
    for one in asked:
        expected.append([])
        for ids in one.answers:
            row = torch.tensor([one.prompt + ids])
            with torch.no_grad():
                told = plain(row).logits.log_softmax(-1)[0, :-1].gather(-1, row[0, 1:, None])[:, 0]
            expected[-1].append(float(told[len(one.prompt) - 1 :].sum()))
    engine = make_engine(load_policy(str(tiny)), Placement())
    for budget in (4096, 40, 1):
        for found, wanted in zip(log_probs(engine, asked, budget), expected, strict=True):
            assert found == pytest.approx(wanted, abs=1e-5)


def test_white_space_before_an_answer_belongs_to_it(tokenizer):
    asked = Encoder(tokenizer, 96).asked('Q: one\nA: ', ['yes', ''])
    assert tokenizer.decode(asked.prompt) == 'Q: one\nA:'
    assert [tokenizer.decode(ids) for ids in asked.answers] == [' yes', ' ']
    empty = Encoder(tokenizer, 96).asked('Q:', [''])
    assert empty.answers == [[]]
    nothing = Encoder(tokenizer, 96).asked('', ['x'])
    assert nothing.prompt == [tokenizer.eos_token_id]


def test_a_long_question_loses_its_beginning_but_not_the_begin_token(tokenizer):
    text = ' '.join(f'word {n}' for n in range(40))
    whole = Encoder(tokenizer, 999).asked(text, ['yes'])
    encoder = Encoder(tokenizer, 20)
    encoder.begin = [7]
    cut = encoder.asked(text, [' yes', ' yes yes'])
    longest = max(map(len, cut.answers))
    assert len(cut.prompt) == 20 - longest
    assert cut.prompt == [7, *whole.prompt[-(19 - longest) :]]
    assert cut.num_cut == len(whole.prompt) - (19 - longest)
    with pytest.raises(UserError, match='--max_length 20: an answer of 30 tokens leaves no room'):
        encoder.asked(text, [], 30)
