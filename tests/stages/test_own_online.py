"""The examples of a sampler and an annotator of one's own, at work in online preference learning."""

from __future__ import annotations

import pytest
from forks import ROOT

HERE = ('--max_length', 96, '--bf16', False, '--log_type', 'none')


@pytest.mark.parametrize(('what', 'options'), [('sampler', ('--sampler_options', 'boldness=0.4')), ('annotator', ())])
def test_the_examples_of_one_s_own(what, options, stages, tiny, starter, tmp_path):
    name = f'custom_{what}'
    reward = () if what == 'annotator' else (
        '--plugin', ROOT / f'examples/{name}.py', ROOT / 'examples/score_functions.py',
        '--reward_model_name_or_path', 'function:brevity',
    )  # fmt: skip
    code, said = stages.run(
        'safe_align.algorithms.online_dpo', '--model_name_or_path', tiny, '--datasets',
        f'jsonl:6/-1:{starter / "train.jsonl"}', '--plugin', ROOT / f'examples/{name}.py', *reward, f'--{what}', name,
        *options, '--max_new_tokens', 8, *HERE, '--output_dir', tmp_path / 'out',
    )  # fmt: skip
    assert code == 0, said
