"""The preference stage with weights of rows: what was sampled, the user's own, and what is refused before it starts."""

from __future__ import annotations

import json
import math

import pytest
import torch
from test_preference import ROOT, STAGE, losses_of, options  # noqa: F401
from test_single_answers import metrics_of

from safe_align.algorithms.preference_loss import answer_log_probs
from safe_align.datasets.mixture import build
from safe_align.datasets.packing import collate
from safe_align.engine import Engine, Placement
from safe_align.models.loading import load_policy, load_tokenizer
from safe_align.templates import Template

IMPORTANCE = ('--reweighter', 'importance')
SHIFT = 0.3  # of the log-probability of each answer


@pytest.fixture
def feedback(chain, starter, tmp_path):
    """`feedback('name', **more)` is a data set of pairs with scores, and with how likely the first model finds them."""
    template = Template(load_tokenizer(str(chain / 'finetune'), '--model'))
    lines = (starter / 'train.jsonl').read_text(encoding='utf-8').splitlines()[:8]
    rows = []
    for number, row in enumerate(map(json.loads, lines)):
        chosen, rejected = (row[f'response_{side}'][:30] for side in (0, 1))
        ids = {
            f'{side}_token_ids': template.response(text) for side, text in (('chosen', chosen), ('rejected', rejected))
        }
        scores = {'score_chosen': number / 4, 'score_rejected': 0.0, 'tokenizer': template.fingerprint}
        rows.append({'prompt': row['prompt'][:80], 'chosen': chosen, 'rejected': rejected, **ids, **scores})

    def write(name: str, **more) -> str:
        path = tmp_path / f'{name}.jsonl'
        path.write_text('\n'.join(json.dumps({**row, **more}) for row in rows))
        return f'jsonl:1:{path}'

    data = build([write('ids')], 'preference', template, 96, seed=0)
    with torch.no_grad():
        engine = Engine(load_policy(str(chain / 'finetune')), Placement())
        found = answer_log_probs(engine, collate(data, range(len(data)))).view(-1, 2).tolist()
    assert len(found) == len(rows)
    for row, values in zip(rows, found, strict=True):
        row |= {f'{side}_log_prob': value - SHIFT for side, value in zip(('chosen', 'rejected'), values, strict=True)}
    return write


def test_rows_weigh_what_the_policy_says_over_what_sampled_them(ends, options, feedback, tmp_path):  # noqa: F811
    run = (*options, '--datasets', feedback('rows'), '--per_device_train_batch_size', 8)
    assert ends(*run, '--output_dir', tmp_path / 'plain')[0] == 0
    assert ends(*run, *IMPORTANCE, '--output_dir', tmp_path / 'weighed')[0] == 0
    (plain,), (weighed,) = metrics_of(tmp_path / 'plain'), metrics_of(tmp_path / 'weighed')
    ratio = math.exp(2 * SHIFT)
    assert weighed['train/reweight'] == pytest.approx(ratio, rel=1e-4)
    assert weighed['train/loss'] == pytest.approx(ratio * plain['train/loss'], rel=1e-4)
    assert 'train/reweight' not in plain
    clipped = ('--reweighter_options', 'clip=1.5')
    assert ends(*run, *IMPORTANCE, *clipped, '--output_dir', tmp_path / 'clipped')[0] == 0
    assert metrics_of(tmp_path / 'clipped')[0]['train/reweight'] == pytest.approx(1.5)


def test_rows_weigh_by_how_much_better_an_answer_is_said_to_be(ends, options, feedback, tmp_path):  # noqa: F811
    run = (*options, '--datasets', feedback('rows'), '--per_device_train_batch_size', 8, '--reweighter', 'margin')
    assert ends(*run, '--output_dir', tmp_path / 'o')[0] == 0
    expected = sum(2 / (1 + math.exp(-n / 4)) - 1 for n in range(8)) / 8
    assert metrics_of(tmp_path / 'o')[0]['train/reweight'] == pytest.approx(expected, rel=1e-5)


def test_without_a_reweighter_nothing_is_different(ends, options, tmp_path):  # noqa: F811
    assert ends(*options, '--output_dir', tmp_path / 'plain')[0] == 0
    assert ends(*options, '--reweighter', 'none', '--output_dir', tmp_path / 'none')[0] == 0
    assert metrics_of(tmp_path / 'plain') == metrics_of(tmp_path / 'none')


@pytest.mark.parametrize('loss', ['kto', 'ppo_offline', 'raft'])
def test_wpo_goes_with_losses_of_single_answers(ends, options, tmp_path, loss):  # noqa: F811
    code, said = ends(*options, '--loss', loss, '--reweighter', 'wpo', '--output_dir', tmp_path / 'o')
    assert code == 0, said
    assert all(0 < one['train/reweight'] < 3 for one in metrics_of(tmp_path / 'o'))


def test_the_example_of_a_custom_reweighter_runs_with_its_option(ends, options, tmp_path):  # noqa: F811
    own = ('--plugin', ROOT / 'examples/custom_reweighter.py', '--reweighter', 'custom_reweighter')
    assert ends(*options, '--output_dir', tmp_path / 'plain')[0] == 0
    for half, low, high in ((1e9, 0.999, 1), (1e-9, 0, 1e-9)):
        out = tmp_path / str(half)
        code, said = ends(*options, *own, '--reweighter_options', f'half={half}', '--output_dir', out)
        assert code == 0, said
        assert low < metrics_of(out)[0]['train/reweight'] < high
    assert losses_of(tmp_path / str(1e9)) == pytest.approx(losses_of(tmp_path / 'plain'), rel=1e-5)


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (IMPORTANCE, '--reweighter importance: 8 of 8 rows do not say how likely their answers were'),
        (('--reweighter', 'importanse'), '--reweighter importanse: no such reweighter (did you mean importance?)'),
        (('--reweighter', 'margin', '--prefer', 'safer'), '--reweighter margin: no row has a margin'),
        ((*IMPORTANCE, '--reweighter_options', 'cap=2'), '--reweighter_options cap=2: importance has clip'),
        ((*IMPORTANCE, '--reweighter_options', 'clip=-1'), '--reweighter importance: clip must be above 0'),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(ends, options, tmp_path, more, message):  # noqa: F811
    code, said = ends(*options, *more, '--output_dir', tmp_path / 'o')
    assert code == 2
    assert message in said.splitlines()[-1]
    assert said.count('\n') == 1
    assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize('more', [{'tokenizer': 'another'}, {'rejected_log_prob': None}])
def test_importance_refuses_rows_of_which_it_is_not_known(ends, options, feedback, tmp_path, more):  # noqa: F811
    given = ('--datasets', feedback('rows', **more))
    code, said = ends(*options, *given, *IMPORTANCE, '--output_dir', tmp_path / 'o')
    assert code == 2
    assert 'importance: 8 of 8 rows do not say' in said.splitlines()[-1]


def test_importance_refuses_rows_that_are_cut(ends, options, feedback, tmp_path):  # noqa: F811
    run = (*options, *IMPORTANCE, '--datasets', feedback('rows'), '--max_length', 24, '--output_dir', tmp_path / 'o')
    code, said = ends(*run)
    assert code == 2
    assert 'or were cut to --max_length' in said.splitlines()[-1]
