"""The house as the design draws it: who imports whom, how large a room may be, and which flags are public."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
from pathlib import Path

import pytest

from safe_align.config import _parser

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'safe_align'
FLAGS = Path(__file__).parent / 'flags'
FILES = sorted(PACKAGE.rglob('*.py'))
GROUND = {'config', 'plugins', 'functions', 'laws', 'options', 'tensors', 'templates', 'distributed'}
STAGES = {
    'finetune.__main__': 'FinetuneConfig',
    'values.reward': 'RewardConfig',
    'values.cost': 'CostConfig',
    'algorithms.preference': 'PreferenceConfig',
    'algorithms.ppo': 'PPOConfig',
    'algorithms.ppo_lag': 'PPOLagConfig',
    'algorithms.ppo_reward_shaping': 'RewardShapingConfig',
    'algorithms.reinforce_ci_lag': 'ReinforceConfig',
    'algorithms.online_dpo': 'OnlineDPOConfig',
    'online.sample': 'SampleConfig',
    'online.annotate': 'AnnotateConfig',
    'evaluate.arena': 'ArenaConfig',
    'evaluate.bigbench': 'BigBenchConfig',
    'evaluate.compare': 'CompareConfig',
    'evaluate.gpt4': 'Gpt4Config',
    'evaluate.cost': 'CostEvaluationConfig',
    'evaluate.kl': 'KLConfig',
    'evaluate.reward': 'RewardEvaluationConfig',
    'evaluate.report': 'ReportConfig',
    'evaluate.safety_test': 'SafetyTestConfig',
    'bandit.__main__': 'BanditConfig',
    'serve.cli': 'ChatConfig',
    'serve.arena': 'DuelConfig',
}


def flags_of(config_class: type) -> list[str]:
    """A line a flag: its names, its default, its choices."""
    return [
        f'{" ".join(flag for flag in action.option_strings if "-" not in flag[2:]) or action.dest}'
        + f' = {action.default}' * (not action.required)
        + f' of {" ".join(map(str, action.choices or ()))}' * (action.choices is not None)
        for action in _parser(config_class, {}, None)._actions
        if action.help is not argparse.SUPPRESS
    ]


def name_of(path: Path) -> str:
    return '.'.join(path.relative_to(PACKAGE).with_suffix('').parts).removesuffix('.__init__')


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, but for those under TYPE_CHECKING."""
    found = set()
    tree = ast.parse(path.read_text(encoding='utf-8'))
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, 'id', '') == 'TYPE_CHECKING'
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return found


def own_imports(path: Path) -> set[str]:
    known = {name_of(file) for file in FILES}
    return {name.removeprefix('safe_align.') for name in imports_of(path) if name.startswith('safe_align.')} & known


@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_a_file_stays_under_250_lines_and_a_function_under_40(path):
    text = path.read_text(encoding='utf-8')
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body  # a docstring explains, it does not compute
            first = body[0].lineno if body else node.end_lineno
            assert node.end_lineno - first < 40, f'{path.name}: {node.name}'


@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_libraries_are_imported_where_the_design_says(path):
    roots = {name.split('.')[0] for name in imports_of(path)}
    name = name_of(path)
    assert 'deepspeed' not in roots or name == 'zero'
    assert 'argparse' not in roots or name == 'config'
    assert not any(i.startswith('torch.distributed') for i in imports_of(path)) or name in ('distributed', 'zero')
    assert not {'pickle', 'dill', 'joblib'} & roots


def test_ground_imports_only_ground():
    for name in GROUND:
        assert own_imports(PACKAGE / f'{name}.py') <= GROUND, name


def test_no_stage_imports_another_and_nothing_imports_a_stage():
    for path in FILES:
        assert not own_imports(path) & set(STAGES), name_of(path)


def test_the_loop_names_no_algorithm():
    assert not any(name.startswith(('algorithms', 'values', 'finetune')) for name in own_imports(PACKAGE / 'loop.py'))


def test_imports_go_round_in_no_circle():
    graph = {name_of(path): own_imports(path) for path in FILES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, ' -> '.join((*trail, name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize('path', [p for p in FILES if p.name == '__init__.py'], ids=lambda p: str(p.parent.name))
def test_init_files_hold_a_docstring_and_public_names(path):
    allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign)
    tree = ast.parse(path.read_text(encoding='utf-8'))
    assert ast.get_docstring(tree)
    assert all(isinstance(node, allowed) for node in tree.body)


@pytest.mark.parametrize(('stage', 'config'), STAGES.items(), ids=STAGES)
def test_flags_are_those_on_record(stage, config):
    """`make golden` writes them anew; the diff is the review."""
    lines = flags_of(getattr(importlib.import_module(f'safe_align.{stage}'), config))
    path = FLAGS / f'{stage.removesuffix(".__main__")}.txt'
    if os.environ.get('GOLDEN') == 'write':
        path.parent.mkdir(exist_ok=True)
        path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    assert path.read_text(encoding='utf-8').splitlines() == lines


def test_inheritance_is_no_deeper_than_two_among_behaviours():
    """Groups of options aside, which are dataclasses put together.

    A public data set may share a reader of tables, and a loss what it is a function of.
    """
    bases, leaves = {}, set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.ClassDef):
                leaves |= {node.name} if path.parent.name in ('raw', 'losses') else set()
                bases[node.name] = [getattr(base, 'id', getattr(base, 'attr', '')) for base in node.bases]

    def depth(name: str) -> int:
        return 1 + max((depth(base) for base in bases[name] if base in bases), default=0)

    checked = [name for name in bases if not name.endswith(('Fields', 'Config'))]
    assert [name for name in checked if depth(name) > (3 if name in leaves else 2)] == []
