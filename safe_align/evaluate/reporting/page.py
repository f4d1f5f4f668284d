"""The page: what was collected, section by section, with its style and its script inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import safe_align
from safe_align.evaluate.reporting.answers import as_json, cut, sources_of
from safe_align.evaluate.reporting.collect import Json, Stage
from safe_align.evaluate.reporting.comparisons import headline, results_of
from safe_align.evaluate.reporting.graph import pipeline
from safe_align.evaluate.reporting.html import Child, Markup, tag
from safe_align.evaluate.reporting.records import article, link, overview, troubles
from safe_align.evaluate.reporting.safety import certificate_of, headlines
from safe_align.evaluate.reporting.training import charts_of
from safe_align.evaluate.reporting.words import duration, moment

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
Build = Callable[[Stage], list[Child]]


class Section(NamedTuple):
    """A part of the page, and the stages that have a part of their own in it."""

    heading: str
    slug: str
    content: list[Child]
    stages: list[Stage]


def page_of(title: str, stages: list[Stage], renewed: float | None = None) -> str:
    """The whole file.

    Args:
        title: what the folder is called.
        stages: as `stages_in` gives them.
        renewed: seconds after which the page loads itself again; None if it is written once.
    """
    sections = [section for section in _sections(stages) if section.content]
    head = tag(
        'head', tag('meta', charset='utf-8'), tag('meta', http_equiv='Content-Security-Policy', content=POLICY),
        tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
        tag('meta', name='color-scheme', content='light dark'), tag('title', f'{title} · safe_align'),
        tag('style', Markup(_asset('page.css'))),
    )  # fmt: skip
    nav = tag('nav', tag('ul', [_entry(section) for section in sections]), aria_label='Contents')
    main = tag('main', [_section(section) for section in sections], id='content', tabindex=-1)
    made_by = f'Made by safe_align {safe_align.__version__} from the files of this folder. It loads and sends nothing.'
    body = tag(
        'body', tag('a', 'Skip to the content', href='#content', class_='skip'), _header(title, stages),
        tag('div', nav, main, class_='columns'), tag('footer', made_by),
        tag('script', Markup(_asset('page.js')), data_renewed=renewed),
    )  # fmt: skip
    return '<!doctype html>\n' + tag('html', head, body, lang='en') + '\n'


def _sections(stages: list[Stage]) -> list[Section]:
    training = [stage for stage in stages if stage.metrics]
    tests = [stage for stage in stages if (stage.directory / 'certificate.json').is_file()]
    others = [stage for stage in stages if stage not in training and stage not in tests]
    sources = sources_of(stages)
    glance = [part for stage in tests for part in _known(stage, headlines)]
    glance += [part for stage in others for part in _known(stage, headline)]
    parts = [
        Section(heading, slug, [article(stage, _known(stage, build)) for stage in some], some)
        for heading, slug, some, build in (
            ('Training', 'training', training, charts_of),
            ('Safety tests', 'safety', tests, certificate_of),
            ('Evaluations and data', 'evaluations', others, results_of),
        )
    ]  # which notes what is wrong with a stage, before the next line tells of it
    ran = [pipeline(stages), troubles(stages), overview(stages)]
    return [
        Section('At a glance', 'glance', [tag('ul', glance, class_='glance')] if glance else [], []),
        Section('Pipeline', 'pipeline', ran, []), *parts, Section('Answers', 'answers', _answers(sources), []),
    ]  # fmt: skip


def _known(stage: Stage, build: Build) -> list[Child]:
    """What `build` makes of a stage; files of a form that is not known are noted, and nothing else suffers."""
    try:
        return build(stage)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        note = f'its files have a form that this page does not know ({type(error).__name__}: {error})'
        stage.notes += [note] if note not in stage.notes else []
        return []


def _header(title: str, stages: list[Stage]) -> Markup:
    finished = [stage for stage in stages if stage.state == 'finished']
    spent = sum(stage.seconds or 0 for stage in finished)
    last = max((stage.finished for stage in finished), default='')
    unfinished = len(stages) - len(finished)
    told = [
        f'{len(stages)} stage' + 's' * (len(stages) != 1) + f', {unfinished} unfinished' * bool(unfinished),
        f'{duration(spent)} of computing' if finished else '',
        ', '.join(sorted({str(stage.record.get('device')) for stage in finished})),
        f'last one finished {moment(last)}' * bool(last),
    ]
    return tag('header', tag('h1', title), tag('p', ' · '.join(filter(None, told))))


def _entry(section: Section) -> Markup:
    inner = tag('ul', [tag('li', link(stage)) for stage in section.stages])
    return tag('li', tag('a', section.heading, href=f'#{section.slug}'), inner if section.stages else None)


def _section(section: Section) -> Markup:
    name = f'{section.slug}-heading'
    return tag('section', tag('h2', section.heading, id=name), section.content, id=section.slug, aria_labelledby=name)


def _answers(sources: list[Json]) -> list[Child]:
    if not sources:
        return []
    files = ', '.join(source['name'] for source in sources)
    return [
        tag('p', 'Texts may be harmful. Answers are shown when a prompt is opened. A cost above 0 is judged unsafe.'),
        tag('div', tag('p', f'To look through them needs JavaScript. The same answers are in {files}.'), id='browser'),
        [tag('p', tag('small', line)) for line in cut(sources)],
        tag('script', as_json(sources), type='application/json', id='answers-data'),
    ]  # fmt: skip


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding='utf-8')
