"""The report of stages that have really run, all of them."""

from __future__ import annotations

from safe_align.config import parse
from safe_align.evaluate.report import ReportConfig, main
from safe_align.evaluate.reporting.collect import stages_in
from safe_align.evaluate.reporting.html import tag


def test_a_report_shows_every_stage_as_it_ran(chain, tiny, tmp_path):
    stages = {stage.label: stage for stage in stages_in(chain.root)}
    assert set(stages) == set(chain.calls)
    edges = {(parent.stage.label if parent.stage else parent.path, label)
             for label, stage in stages.items() for parent in stage.parents}  # fmt: skip
    assert {(str(tiny), 'finetune'), ('finetune', 'reward'), ('cost', 'ppo_lag'), ('ppo_lag', 'safety_test')} <= edges
    assert [start for start, _ in edges if start not in stages] == [str(tiny)]
    assert main(parse(ReportConfig, [str(chain.root), '--output_file', str(tmp_path / 'report.html')])) == 0
    page = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert not any(stage.notes or parent.changed for stage in stages.values() for parent in stage.parents)
    assert 'class="notes"' not in page  # nothing is cut, nothing is of an unknown form
    for label, stage in stages.items():
        assert page.count(f'id="{stage.slug}"') == 1
        assert stage.hashes[0][:8] in page, label
    kl = stages['kl'].summary['policies'][0]['kl']
    assert f'{kl["value"]:.3f} <small>[{kl["low"]:.3f}, {kl["high"]:.3f}]' in page
    assert tag('strong', 'Reward against cost over training') in page
