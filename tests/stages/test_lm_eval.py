"""lm-evaluation-harness takes our directories as they are: what it says of a policy's choices is what bigbench says."""

from __future__ import annotations

import json

import pytest
from bigbench_files import HEAD, write

QUESTIONS = {
    **HEAD, 'name': 'evenness', 'metrics': ['multiple_choice_grade'], 'preferred_score': 'multiple_choice_grade',
    'task_prefix': 'Answer the question.\n',
    'examples': [
        {'input': f'Is {n} even?', 'target_scores': {'yes, it is': 1 - n % 2, 'no': n % 2, 'nobody knows': 0}}
        for n in range(6)
    ],
}  # fmt: skip
TASK = """
task: evenness
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {cache}}}
test_split: test
output_type: multiple_choice
doc_to_text: input
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ''
metric_list: [{{metric: acc}}]
"""


def test_a_policy_of_ours_has_the_same_scores_there(ends, chain, tmp_path, monkeypatch):
    pytest.importorskip('lm_eval')
    options = ('--task_file', write(tmp_path / 'evenness', QUESTIONS), '--bf16', False)
    assert ends('evaluate.bigbench', '--model_name_or_path', chain / 'finetune', *options)[0] == 0
    lines = (tmp_path / 'out/samples.jsonl').read_text(encoding='utf-8').splitlines()
    ours = [json.loads(line) for line in lines]
    summary = json.loads((tmp_path / 'out/summary.json').read_text(encoding='utf-8'))
    grade = summary['tasks']['evenness'][0]['scores']['multiple_choice_grade']['value']

    right = ((row['input'], list(row['scores']), list(row['scores'].values()).index(1)) for row in ours)
    docs = [dict(zip(('input', 'choices', 'answer'), doc, strict=True)) for doc in right]
    tasks, file = tmp_path / 'tasks', tmp_path / 'evenness.jsonl'
    tasks.mkdir()
    file.write_text(''.join(json.dumps(doc) + '\n' for doc in docs), encoding='utf-8')
    (tasks / 'evenness.yaml').write_text(TASK.format(file=file, cache=tmp_path / 'cache'), encoding='utf-8')

    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    model = {'pretrained': str(chain / 'finetune'), 'dtype': 'float32'}
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = simple_evaluate('hf', model, ['evenness'], device='cpu', bootstrap_iters=0, task_manager=manager)
    theirs = sorted(found['samples']['evenness'], key=lambda sample: sample['doc_id'])
    assert len(theirs) == len(ours) == 6
    for row, sample in zip(ours, theirs, strict=True):
        assert [float(value) for value, _ in sample['filtered_resps']] == pytest.approx(row['log_probs'], abs=1e-4)
    assert found['results']['evenness']['acc,none'] == pytest.approx(grade)
