"""The README and docs/ as text: where links lead, and whether what is named is there."""

from __future__ import annotations

import pkgutil
import re

import pytest
from pages import PAGES, ROOT, prose_of

FLAGS = {word for path in (ROOT / 'tests/architecture/flags').glob('*.txt') for word in path.read_text().split()}
SCRIPTS = {'--hostfile', '--iterations'}  # of scripts alone
FOREIGN = {'--logprobs-mode'}  # of vLLM
LINK = re.compile(r'\[[^]]*\]\(([^)#]*)(?:#([^)]*))?\)')


def prose(page) -> str:
    return prose_of(page.read_text(encoding='utf-8'))


def anchors(page) -> set[str]:
    """What a heading is called in a link to it, by GitHub's rule."""
    headings = re.findall('^#+ (.+)$', prose(page), re.MULTILINE)
    return {re.sub('[^\\w -]', '', heading).strip().lower().replace(' ', '-') for heading in headings}


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request):
    return request.param


def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(re.sub('`[^`\n]*`', '', prose(page))):
        if not target.startswith('http'):
            place = (page.parent / target).resolve() if target else page
            assert place.exists(), target
            assert not anchor or anchor in anchors(place), (target, anchor)


def test_every_page_can_be_found_from_the_map():
    named = {(ROOT / 'docs' / target).resolve() for target, _ in LINK.findall(prose(ROOT / 'docs/README.md'))}
    assert {page for page in PAGES if page.parent.name == 'docs' and page.name != 'README.md'} <= named


def test_flags_and_names_that_are_mentioned_exist(page):
    spans = [span for span in re.findall('(?<!`)`([^`\\n]+)`(?!`)', prose(page)) if not page.stem.startswith('from-')]
    for flag in {flag for span in spans for flag in re.findall(r'(?<![\w-])--[a-z]\w*[\w-]*', span)}:
        prefix = any(known.startswith(flag) for known in FLAGS) and flag.endswith('_')
        assert flag in FLAGS | SCRIPTS | FOREIGN | {'--help'} or flag.replace('--no_', '--') in FLAGS or prefix, flag
    for name in {span for span in spans if re.fullmatch(r'safe_align(\.\w+)+(?<!\.json)', span)}:
        assert pkgutil.resolve_name(name), name
    for path in {span for span in spans if re.fullmatch(r'(scripts|examples|benchmarks)/[\w./-]+', span)}:
        assert (ROOT / path).exists(), path
