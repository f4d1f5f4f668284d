"""What records say of the stages: the table of all, the facts and options of each, and what is wrong with any."""

from __future__ import annotations

from safe_align.evaluate.reporting.collect import Parent, Stage
from safe_align.evaluate.reporting.html import Child, Markup, tag
from safe_align.evaluate.reporting.tables import facts, table
from safe_align.evaluate.reporting.words import duration, moment, short_hash, short_path

HEADS = ['directory', 'stage', 'made from', 'rows used', 'time', 'device', 'peak memory', 'content']


def article(stage: Stage, content: list[Child]) -> Markup:
    """A stage: what is wrong with it, its facts, its own content, its options."""
    done = stage.state == 'finished'
    data = [tag('li', line) for line in _data(stage)]
    told = facts([
        ('stage', stage.name), ('makes', stage.kind), ('state', None if done else stage.state),
        ('time since its last start', duration(stage.seconds) if done else None),
        ('finished', moment(stage.finished)), ('content', _code(stage.hashes[0]) if stage.hashes else None),
        ('data', tag('ul', data) if data else None),
        ('made from', tag('ul', [tag('li', _made_from(one)) for one in stage.parents]) if stage.parents else None),
    ])  # fmt: skip
    notes = tag('ul', [tag('li', note) for note in stage.notes], class_='notes') if stage.notes else None
    heading = tag('h3', stage.label, id=f'{stage.slug}-heading')
    names = {'id': stage.slug, 'aria_labelledby': f'{stage.slug}-heading'}
    return tag('article', heading, notes, told, content, _options(stage), **names)


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
    used = sum(data['used'] for data in stage.datasets)
    parents = dict.fromkeys(parent.stage for parent in stage.parents if parent.stage)
    return [
        link(stage), stage.name, [[', ' * (n > 0), link(one)] for n, one in enumerate(parents)] or '–',
        f'{used:,}' if used else '–', duration(stage.seconds) if stage.state == 'finished' else stage.state,
        stage.record.get('device', '–'), '–' if stage.memory is None else f'{stage.memory:g} GiB',
        _code(stage.hashes[0]) if stage.hashes else '–',
    ]  # fmt: skip


def _options(stage: Stage) -> Markup | None:
    rows = [
        [tag('code', f'--{name}'), ' '.join(map(str, value)) if isinstance(value, list) else str(value)]
        for name, value in sorted(stage.arguments.items()) if value is not None
    ]  # fmt: skip
    versions = stage.record.get('versions')
    told = ', '.join(f'{name} {one}' for name, one in versions.items()) if isinstance(versions, dict) else 'Options'
    return tag('details', tag('summary', 'Options'), table(told, ['option', 'value'], rows)) if rows else None


def _made_from(parent: Parent) -> list[Child]:
    name: Child = link(parent.stage) if parent.stage else short_path(parent.path)
    where = ', changed since' if parent.changed else '' if parent.stage else ', outside this folder'
    return [f'{parent.role} ', name, ' ', _code(parent.hash), where]


def _code(digest: str | None) -> Markup:
    return tag('code', short_hash(digest), title=digest)


def _data(stage: Stage) -> list[str]:
    """What went into a stage, as its options name it where these are as many, and what was left out of it."""
    specs = stage.arguments.get('train_datasets') or stage.arguments.get('datasets') or []
    names = [str(one.get('name')) for one in stage.datasets]
    given = list(map(str, specs if isinstance(specs, list) else ()))
    if len(given) == len(names) and all(map(str.startswith, given, names)):
        names = given
    lines = []
    for name, one in zip(names, stage.datasets, strict=True):
        skipped = one.get('skipped')
        left_out = ', '.join(f'{count} {why}' for why, count in skipped.items()) if isinstance(skipped, dict) else ''
        lines.append(f'{name}: {one["used"]} of {one.get("rows")} rows' + f'; left out: {left_out}' * bool(left_out))
    return lines
