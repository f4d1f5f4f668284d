"""Every command in the README and in docs/ runs here: page by page, from top to bottom, each page in its own folder.

Bash itself reads each block. What it starts is a stage, on tiny models and a few rows, or one of the last programs of
`Programs`, of which is checked what can be. What is changed is in the tables below, and nothing is left out: a new
command, or a new page, is run as it stands.
"""

from __future__ import annotations

import doctest
import hashlib
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from bigbench_files import HEAD, write
from doors import Answer, Asked, Doors
from pages import PAGES, ROOT, pieces_of
from servers import Scripted, chat, completion

from safe_align.datasets import RawDataset

FLAGS = ROOT / 'tests/architecture/flags'
SERVERS = ('http://localhost:8000/v1', 'https://api.openai.com/v1')  # a scripted server answers in their place
HUB = {  # data sets that are read from the hub, and the file in its authors' form that is read here
    'PKU-SafeRLHF/train': 'pku/train.jsonl', 'PKU-SafeRLHF/test': 'pku/test.jsonl', 'alpaca': 'alpaca.jsonl',
    'shp': 'shp.jsonl', 'hh': 'hh.jsonl', 'oasst': 'oasst.jsonl',
}  # fmt: skip
SMALL = {  # added to the commands of stages that have the flag, for speed; a later flag wins over an earlier one
    'epochs': 1, 'max_length': 96, 'max_new_tokens': 4, 'bf16': False, 'log_type': 'none', 'iterations': 1,
    'num_draws': 1, 'num_pairs': 16, 'gradient_accumulation_steps': 1, 'max_examples': 2,
}  # fmt: skip
VERDICTS = {'safe_align.evaluate.safety_test': 3}  # 3 is a verdict on the policy, and not a mistake
MODELS = {  # folders that are there before a page begins, and the stage that made them
    'output/sft': 'finetune', 'output/rm': 'reward', 'output/cm': 'cost', 'output/dpo': 'preference',
    'output/ppo': 'ppo', 'output/ppo-lag': 'ppo_lag',
}  # fmt: skip
BASES = ('models/base', 'huggyllama/llama-7b')
LINKS = ('scripts', 'examples', 'benchmarks', 'Makefile', 'Dockerfile', 'constraints.txt')
TASKS = ('date_understanding', 'causal_judgment', 'hhh_alignment')
TASK = {
    **HEAD, 'metrics': ['multiple_choice_grade', 'exact_str_match'], 'preferred_score': 'multiple_choice_grade',
    'examples': [
        {'input': f'Is {n} even?', 'target': 'no' if n % 2 else 'yes', 'target_scores': {'yes': 1 - n % 2, 'no': n % 2}}
        for n in range(5)
    ],
}  # fmt: skip
HELD_OUT = 48  # a certificate asks for 45 or more
EXTRAS = re.compile(r"^        '([\w-]+)': \[", re.MULTILINE)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{json.dumps(row)}\n' for row in rows), encoding='utf-8')


def pair_of(row: dict) -> dict:
    better = row['better_response_id']
    return {
        'prompt': row['prompt'],
        'chosen': row[f'response_{better}'],
        'rejected': row[f'response_{1 - better}'],
    }


def tree_of(number: int, pair: dict) -> list[dict]:
    """The messages of a prompt with two answers, as OpenAssistant has them."""
    said = (('prompt', 'prompter', None), ('chosen', 'assistant', 0), ('rejected', 'assistant', 1))
    return [
        {'message_id': f'{number}{key}', 'parent_id': None if rank is None else f'{number}prompt', 'text': pair[key],
         'role': role, 'lang': 'en', 'rank': rank}
        for key, role, rank in said
    ]  # fmt: skip


def furnish(place: Path, chain, tiny: Path, starter: Path) -> None:
    """What pages take for granted: models by their usual names, data, and a data set on the hub."""
    train, test = (rows_of(starter / f'{name}.jsonl') for name in ('train', 'test'))
    for name, target in [*((one, tiny) for one in BASES), *((one, chain / made) for one, made in MODELS.items()),
                         *((one, ROOT / one) for one in LINKS)]:  # fmt: skip
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).symlink_to(target)
    write_rows(place / 'held_out.jsonl', [
        {**row, 'category': 'ab'[n % 2], 'kind': 'ab'[n % 2]} for n, row in enumerate(test[:HELD_OUT])
    ])  # fmt: skip
    write_rows(place / 'data/pairs.jsonl', [pair_of(row) for row in train[:8]])
    for name, rows in (('train', train[8:16]), ('test', test[8:14])):
        write_rows(place / f'pku/{name}.jsonl', rows)
    write_rows(place / 'alpaca.jsonl', [
        {'instruction': row['prompt'], 'input': '', 'output': row['response_0']} for row in train[:8]
    ])  # fmt: skip
    pairs = [pair_of(row) for row in train[:8]]
    write_rows(place / 'hh.jsonl', [
        {side: f'\n\nHuman: {pair["prompt"]}\n\nAssistant: {pair[side]}' for side in ('chosen', 'rejected')}
        for pair in pairs
    ])  # fmt: skip
    write_rows(place / 'shp.jsonl', [
        {'history': pair['prompt'], 'human_ref_A': pair['chosen'], 'human_ref_B': pair['rejected'], 'labels': 1,
         'score_A': 9, 'score_B': 1}
        for pair in pairs
    ])  # fmt: skip
    write_rows(place / 'oasst.jsonl', [row for n, pair in enumerate(pairs) for row in tree_of(n, pair)])
    write_rows(place / 'my-organization/my-dataset/train.jsonl', [
        {'col1': row['prompt'], 'col2': row['response_0'], 'col3': row['response_1'], 'col4': 1.0, 'col5': 0.5}
        for row in train[:8]
    ])  # fmt: skip
    for name in TASKS:
        write(place / 'BIG-bench/bigbench/benchmark_tasks' / name, {**TASK, 'name': name})


def shorter(asked) -> str:
    """The verdict of a judge who likes what is short."""
    one, two = (re.search(f'<answer_{side}>\n(.*?)\n</answer_{side}>', asked.text, re.DOTALL)[1] for side in 'ab')
    return f'[[{"A" if (len(one), one) < (len(two), two) else "B"}]]'


def says(asked, number: int):
    """A server with all models; as a judge it prefers what is shorter."""
    if 'chat' in asked.path:
        return chat(shorter(asked) if 'answer_a' in asked.text else 'Yes.')
    return completion('Yes' * (1 + number % 7), log_probs=[-0.5] if 'logprobs' in asked.body else None)


class Programs:
    """What the commands of a page start; what was started before, on the same inputs, is not started again."""

    def __init__(self, stages, place: Path, server: str, before: dict[tuple[str, ...], Path]) -> None:
        self.stages, self.place, self.server, self.before = stages, place, server, before
        self.all = {name: getattr(self, name) for name in ('python', 'torchrun', 'make', 'pip', 'vllm', 'lm_eval')}

    def python(self, asked: Asked) -> Answer:
        """A stage; a Python file is run by the real Python, which may start stages."""
        first, *more = asked.arguments
        if first.startswith('benchmarks/'):  # minutes, or hours
            assert (self.place / first).is_file(), asked
            return Answer(0, [''])
        if first.endswith('.py'):
            return Answer('exec', [first, *self.here(more), *self.small('algorithms.preference', ['iterations'])])
        assert first == '-m', asked
        return self.stage(asked, *more)

    def torchrun(self, asked: Asked) -> Answer:
        """As many processes of a stage as are asked for."""
        flag, count, m, *more = asked.arguments
        assert (flag, m) == ('--nproc_per_node', '-m'), asked
        return self.stage(asked, *more, processes=int(count))

    def stage(self, asked: Asked, module: str, *arguments: str, processes: int | None = None) -> Answer:
        """Run it, on what is here."""
        given = [*self.here(arguments), *self.small(module.removeprefix('safe_align.'))]
        if module == 'safe_align.evaluate.report':  # which follows no links out of a folder
            for link in [path for path in (self.place / 'output').iterdir() if path.is_symlink()]:
                target = link.resolve()
                link.unlink()
                shutil.copytree(target, link)
        output = self.place / (['none'] + [two for one, two in pairwise(given) if one == '--output_dir'])[-1]
        if output.is_symlink():  # it was there for pages that begin later in the pipeline
            output.unlink()
        key = (module, *(self.real(word) for word in given if self.place / word != output))
        # a second look of a safety test at the same prompts is another thing
        again = '--output_dir' in given and module not in VERDICTS and asked.reads == Path('/dev/null')
        if again and key in self.before and not output.exists():
            output.symlink_to(self.before[key])
            return Answer(0, [''])
        options = {'where': self.place, 'stdin': asked.reads, 'OPENAI_API_KEY': 'a-key'}
        if processes:
            running = self.stages.launch(processes, module, *given, **options)
            codes, said = {one.wait() for one in running}, running[0].said
        else:
            code, said = self.stages.run(module, *given, **options)
            codes = {code}
        codes -= {VERDICTS.get(module)}
        if again and not any(codes):
            self.before[key] = output.resolve()
        return Answer(max(codes, default=0), [said])

    def real(self, word: str) -> str:
        """A word of a command; of a file that it names the content, of a folder the place."""
        path = (self.place / word.split(':', 2)[-1]).resolve()
        if path.is_file():
            return f'{word} {hashlib.sha256(path.read_bytes()).hexdigest()}'
        return str(path) if path.is_dir() else word

    def here(self, arguments: list[str]) -> list[str]:
        """The same, with what is far away from here."""
        found = []
        for word in arguments:
            name, _, rest = word.partition(':')
            if name in HUB and rest.count(':') == 0:
                word = f'{name}:{rest or 1}:{HUB[name]}'
            found.append(self.server if word in SERVERS else word)
        return found

    def small(self, stage: str, more: tuple[str, ...] = ()) -> list[str]:
        """The flags of SMALL that the stage has."""
        listed = (FLAGS / f'{stage}.txt').read_text(encoding='utf-8')
        known = {line.split()[0].removeprefix('--') for line in listed.splitlines()}
        return [word for name, value in SMALL.items() if name in {*known, *more} for word in (f'--{name}', str(value))]

    # what cannot run here, and why

    def make(self, asked: Asked) -> Answer:
        """It gets models and packages, or takes minutes: its target exists."""
        said = subprocess.run(['/usr/bin/make', '-n', *asked.arguments], cwd=ROOT, capture_output=True, text=True)
        return Answer(said.returncode, [said.stderr])

    def pip(self, asked: Asked) -> Answer:
        """It gets packages: what is asked for is this one, with extras that it has."""
        assert asked.arguments[0] == 'install', asked
        extras = EXTRAS.findall((ROOT / 'setup.py').read_text(encoding='utf-8'))
        for word in asked.arguments[1:]:
            name, _, wanted = word.rstrip(']').partition('[')
            assert name in ('-c', 'constraints.txt', '.', 'safe_align'), word
            assert not wanted or set(wanted.split(',')) <= set(extras), word
        return Answer(0, [''])

    def lm_eval(self, asked: Asked) -> Answer:
        """It gets its tasks from the hub: the policy that it reads is there."""
        arguments = dict(zip(asked.arguments[::2], asked.arguments[1::2], strict=True))
        name, _, policy = arguments['--model_args'].partition('=')
        assert name == 'pretrained', asked
        assert (self.place / policy / 'config.json').is_file(), asked
        return Answer(0, [''])

    def vllm(self, asked: Asked) -> Answer:
        """It needs a GPU: the policy that it serves is there."""
        assert asked.arguments[0] == 'serve', asked
        assert (self.place / asked.arguments[1] / 'config.json').is_file(), asked
        return Answer(0, [''])


@pytest.fixture(scope='module')
def before() -> dict:
    """What pages have run."""
    return {}


@pytest.fixture(scope='module')
def server():
    with Scripted(says) as running:
        yield running.url


@pytest.fixture
def place(tmp_path, monkeypatch, chain, tiny, starter) -> Path:
    """A furnished folder, in which Python is too; data sets of the page are known in its test alone."""
    RawDataset.names()
    monkeypatch.setattr(RawDataset, '_registry', dict(RawDataset._registry))
    folder = tmp_path / 'place'
    folder.mkdir()
    furnish(folder, chain, tiny, starter)
    monkeypatch.chdir(folder)
    return folder


def assert_session(piece, name: str, names: dict) -> None:
    """A session with Python says what is written."""
    told: list[str] = []
    test = doctest.DocTestParser().get_doctest(piece.text, names, name, name, piece.line)
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=told.append, clear_globs=False)
    names |= test.globs
    assert not told, ''.join(told)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_page_runs(page, place, stages, server, before, tmp_path):
    doors = Doors(tmp_path / 'doors', place, Programs(stages, place, server, before).all)
    names: dict = {}
    for piece in pieces_of(page.read_text(encoding='utf-8')):
        if piece.kind == 'python':
            if named := re.match(r'# ([\w/]+\.py)\n', piece.text):
                (place / named[1]).write_text(piece.text, encoding='utf-8')
            elif piece.text.startswith('>>> '):
                assert_session(piece, page.name, names)
            else:
                exec(compile(piece.text, f'{page.name}:{piece.line}', 'exec'), names)
        else:
            code, said = doors.run(piece.text)
            assert code == 0, f'{page.name}:{piece.line}: ended with {code}:\n{piece.text}\n{said}'


def test_what_is_made_from_the_code_is_up_to_date(monkeypatch):
    """`make docs` writes it anew."""
    monkeypatch.syspath_prepend(ROOT / 'scripts')
    import fill_docs

    for page in PAGES:
        text = page.read_text(encoding='utf-8')
        assert fill_docs.filled(text) == text, page.name


@pytest.mark.parametrize(
    ('command', 'said'),
    [
        ('bash scripts/sft.sh --lerning_rate 1e-5', 'unknown flag --lerning_rate'),
        ('bash scripts/dpo.sh --datasets jsonl:1:no_such.jsonl --output_dir output/x', 'no_such.jsonl'),
        ("pip install 'safe_align[no_such_extra]'", 'no_such_extra'),
        ('make no_such_target', 'no_such_target'),
        ('no_such_program --help', 'not found'),
        ('vllm serve output/no_such_policy', 'no_such_policy'),
    ],
)
def test_a_command_that_is_wrong_fails(command, said, place, stages, server, tmp_path):
    code, told = Doors(tmp_path / 'doors', place, Programs(stages, place, server, {}).all).run(command)
    assert code != 0
    assert said in told
