"""What records say of the stages: the table of all, the facts and options of each, and what is wrong with any."""

from __future__ import annotations

from safe_align.evaluate.reporting.collect import Json, Parent, Stage
from safe_align.evaluate.reporting.html import Child, Markup, tag
from safe_align.evaluate.reporting.tables import facts, table
from safe_align.evaluate.reporting.words import duration, moment, short_hash, short_path

HEADS = ['directory', 'stage', 'made from', 'rows used', 'time', 'device', 'peak memory', 'content']


def article(stage: Stage, content: list[Child]) -> Markup:
    """A stage: what is wrong with it, its facts, its own content, its options."""
    record, done = stage.record, stage.state == 'finished'
    data = [tag('li', _data(one)) for one in _datasets(stage)]
    told = facts([
        ('stage', stage.name), ('makes', stage.kind), ('state', None if done else stage.state),
        ('time since its last start', duration(record.get('seconds_since_last_start')) if done else None),
        ('finished', moment(record.get('finished'))), ('content', _code(stage.hashes[0]) if stage.hashes else None),
        ('data', tag('ul', data) if data else None),
        ('made from', tag('ul', [tag('li', _made_from(one)) for one in stage.parents]) if stage.parents else None),
    ])  # fmt: skip
    notes = tag('ul', [tag('li', note) for note in stage.notes], class_='notes') if stage.notes else None
    heading = tag('h3', stage.label, id=f'{stage.slug}-heading')
    names = {'id': stage.slug, 'aria_labelledby': f'{stage.slug}-heading'}
    return tag('article', heading, notes, told, content, _options(record), **names)


def overview(stages: list[Stage]) -> Markup:
    """A row a stage."""
    caption = 'Stages, each behind those that it was made from; the time is that since its last start'
    return table(caption, HEADS, [_row(stage) for stage in stages])


def troubles(stages: list[Stage]) -> Markup | None:
    """What a reader must know before trusting a stage."""
    told = [(stage, note) for stage in stages for note in stage.notes]
    told += [
        (stage, f'was made from another content of {parent.stage.label} than is there now')
        for stage in stages for parent in stage.parents if parent.changed and parent.stage
    ]  # fmt: skip
    items = [tag('li', link(stage), f': {note}') for stage, note in told]
    return tag('ul', items, class_='notes') if items else None


def link(stage: Stage) -> Markup:
    """To where the page tells of a stage."""
    return tag('a', stage.label, href=f'#{stage.slug}')


def _row(stage: Stage) -> list[Child]:
    record, used = stage.record, sum(data['used'] for data in _datasets(stage))
    parents = dict.fromkeys(parent.stage for parent in stage.parents if parent.stage)
    return [
        link(stage), stage.name, [[', ' * (n > 0), link(one)] for n, one in enumerate(parents)] or '–',
        f'{used:,}' if used else '–',
        duration(record.get('seconds_since_last_start')) if stage.state == 'finished' else stage.state,
        record.get('device', '–'), f'{record["peak_memory_gib"]:g} GiB' if 'peak_memory_gib' in record else '–',
        _code(stage.hashes[0]) if stage.hashes else '–',
    ]  # fmt: skip


def _options(record: Json) -> Markup | None:
    given = sorted((record.get('arguments') or {}).items())
    rows = [[tag('code', f'--{name}'), ' '.join(map(str, value)) if isinstance(value, list) else str(value)]
            for name, value in given if value is not None]  # fmt: skip
    versions = ', '.join(f'{name} {number}' for name, number in (record.get('versions') or {}).items())
    inner = table(versions or 'Options', ['option', 'value'], rows)
    return tag('details', tag('summary', 'Options'), inner) if rows else None


def _made_from(parent: Parent) -> list[Child]:
    name: Child = link(parent.stage) if parent.stage else short_path(parent.path)
    where = ', changed since' if parent.changed else '' if parent.stage else ', outside this folder'
    return [f'{parent.role} ', name, ' ', _code(parent.hash), where]


def _code(digest: str | None) -> Markup:
    return tag('code', short_hash(digest), title=digest)


def _datasets(stage: Stage) -> list[Json]:
    """What went into a stage, as far as its record counts it."""
    given = stage.record.get('datasets')
    return [one for one in given if isinstance(one, dict) and 'used' in one] if isinstance(given, list) else []


def _data(data: Json) -> str:
    left_out = ', '.join(f'{count} {reason}' for reason, count in (data.get('skipped') or {}).items())
    return f'{data.get("name")}: {data["used"]} of {data.get("rows")} rows' + f'; left out: {left_out}' * bool(left_out)
