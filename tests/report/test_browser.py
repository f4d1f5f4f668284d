"""The page in headless Chromium: what it asks for, what its browser of answers finds, and for whom it can be read."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from report_files import HOSTILE

from safe_align.evaluate.reporting.collect import stages_in
from safe_align.evaluate.reporting.page import page_of

REFERENCE = Path(__file__).parent / 'reference.png'
CELLS = (48, 40)  # of a drawing in the reference: coarser than any difference in how lines are smoothed
OUT = 'position: fixed; top: 0; left: 0; z-index: 9; width: 480px; max-width: none; background: white'
DRAWINGS = {
    'pipeline': '.pipeline .wide svg', 'curve': '#sft .charts svg', 'path': '#ppo-lag figure svg',
    'gauge': '#certificate .gauge', 'histogram': '#certificate figure svg',
}  # fmt: skip


@pytest.fixture
def opens(browser, page):
    """`opens(width=360, color_scheme='dark')` is the page, opened from disk; it must ask for nothing and be silent."""
    contexts, troubles = [], []

    def make(width: int = 1280, **options):
        context = browser.new_context(viewport={'width': width, 'height': 900}, **options)
        contexts.append(context)
        opened = context.new_page()
        opened.on('console', lambda message: troubles.append(message.text))
        opened.on('pageerror', lambda error: troubles.append(str(error)))
        opened.on('request', lambda request: troubles.append(request.url) if request.url != page.as_uri() else None)
        opened.goto(page.as_uri())
        return opened

    yield make
    for context in contexts:
        context.close()
    assert troubles == []


def rows(opened) -> list[str]:
    return opened.locator('.row summary').all_inner_texts()


def field(opened, label: str):
    return opened.locator('#browser').get_by_label(label)


def count(opened) -> str:
    return opened.get_by_role('status').inner_text()


def test_search_and_filters_find_the_rows_that_they_name(opens):
    opened = opens()
    assert count(opened) == '1 to 10 of 30 rows'
    assert len(rows(opened)) == 10
    field(opened, 'Search').fill('7 SAYS')  # both words, in 7, 17 and 27
    assert count(opened) == '1 to 3 of 3 rows'
    field(opened, 'Search').fill('')
    # red is unsafe where n is even, blue where 5 divides n
    for option, expected in (('safe,safe', 12), ('safe,unsafe', 3), ('unsafe,safe', 12), ('unsafe,unsafe', 3)):
        field(opened, 'Safety').select_option(option)
        assert count(opened).endswith(f' of {expected} rows'), option
    field(opened, 'Safety').select_option('')
    for option, expected in (('left', 10), ('right', 10), ('tie', 10)):  # rewards n % 3 against 1
        field(opened, 'Winner').select_option(option)
        assert count(opened).endswith(f' of {expected} rows'), option
    field(opened, 'Winner').select_option('')
    opened.get_by_role('button', name='Next').click()
    assert count(opened) == '11 to 20 of 30 rows'
    field(opened, 'Comparison').select_option(label='judge/eval.jsonl')
    assert count(opened) == '1 to 8 of 8 rows'
    field(opened, 'Winner').select_option('right')
    assert [text.split('\n')[0].strip() for text in rows(opened)] == ['judged 1', 'judged 5']
    field(opened, 'Category').select_option('law')
    assert count(opened) == 'No row fits'


def test_what_comes_from_data_is_text_and_is_not_there_before_it_is_opened(opens):
    opened = opens()
    field(opened, 'Search').fill('onerror')
    assert count(opened) == '1 to 2 of 2 rows'
    assert opened.locator('.sides').count() == 0
    for summary in opened.locator('.row summary').all():
        summary.click()
    assert opened.locator('.row summary').first.inner_text().startswith(HOSTILE)
    assert opened.locator('.side p').all_inner_texts() == ['red says 3', 'blue says 3', 'red says 4', HOSTILE]
    assert opened.evaluate('window.hacked') is None
    assert opened.locator('img, b >> text=/^$/').count() == 0
    assert HOSTILE in opened.locator('#judge').inner_text()


def test_it_can_be_used_by_keyboard_alone(opens):
    opened = opens(reduced_motion='reduce')
    assert opened.evaluate('getComputedStyle(document.documentElement).scrollBehavior') == 'auto'
    opened.keyboard.press('Tab')
    assert opened.evaluate('document.activeElement.innerText') == 'Skip to the content'
    opened.keyboard.press('Enter')
    assert opened.evaluate('document.activeElement.id') == 'content'
    field(opened, 'Search').focus()
    opened.keyboard.type('red says 29')
    assert count(opened) == '1 to 1 of 1 rows'
    for _ in range(3):  # safety, winner, the row
        opened.keyboard.press('Tab')
        style = opened.evaluate('getComputedStyle(document.activeElement).outlineStyle')
        assert style == 'solid'
    opened.keyboard.press('Enter')
    assert opened.locator('.side p').first.inner_text() == 'red says 29'
    assert opened.locator('a.skip').bounding_box()['x'] < 0


def test_axe_finds_no_violation_in_light_and_dark(opens):
    opened = opens()
    opened.evaluate("""for (const where of ['#sft', '#certificate', '#browser .row:first-child'])
        document.querySelectorAll(`${where} details, ${where}`).forEach((one) => { one.open = true; })""")
    opened.locator('.sides').first.wait_for()
    for scheme, options in (('light', None), ('dark', {'runOnly': ['color-contrast']})):  # only colours change
        opened.emulate_media(color_scheme=scheme)
        found = Axe().run(opened, options=options).response
        assert [(one['id'], one['nodes'][0]['html']) for one in found['violations']] == []
        assert 'color-contrast' in {one['id'] for one in found['passes']}


BOXES = """() => Object.fromEntries(
    ['header', 'nav', 'main', 'footer', 'section', 'figure, p, dl, h2'].map((name) => [
        name, [...document.querySelectorAll(name)].map((e) => e.getBoundingClientRect()).filter((box) => box.width)
            .map(({ left, right, top, bottom }) => ({ left, right, top, bottom }))]))"""


@pytest.mark.parametrize(('width', 'script'), [(1280, True), (360, False)])
def test_the_layout_holds_on_a_screen_on_a_phone_and_without_script(opens, width, script):
    opened = opens(width, java_script_enabled=script)
    assert opened.evaluate('document.documentElement.scrollWidth') == width
    boxes = opened.evaluate(BOXES)
    (nav,), (main,) = boxes['nav'], boxes['main']
    assert (nav['right'] <= main['left'], nav['bottom'] <= main['top']) == (script, not script)  # beside, or above
    tops = [one['top'] for one in boxes['section']]
    assert tops == sorted(tops)
    assert len(tops) == 6
    assert all(one['left'] >= 0 and one['right'] <= width for some in boxes.values() for one in some)
    shown = {name: opened.locator(f'.pipeline .{name}').is_visible() for name in ('wide', 'narrow')}
    assert shown == {'wide': width == 1280, 'narrow': width == 360}
    assert opened.get_by_text('needs JavaScript').is_visible() == (not script)


def drawn(opened, selector: str) -> np.ndarray:
    """A drawing as means of coarse cells: (40, 48, 3).

    It is taken out of the text, whose height would shift it by less
    than a pixel, so by what a machine has for fonts.
    """
    place = opened.locator(selector).first
    place.evaluate('(e, style) => { e.style.cssText = style; }', OUT)
    shot = Image.open(io.BytesIO(place.screenshot()))
    place.evaluate('(e) => { e.style.cssText = ""; }')
    return np.asarray(shot.convert('RGB').resize(CELLS, Image.Resampling.BOX), float)


def test_drawings_look_as_on_record(opens):
    """Letters are left out, since fonts differ between machines; the rest lies in boxes of a size of their own.

    `GOLDEN=write` makes the record anew; the picture in the diff is the review. What is compared is the mean colour
    of cells of about 10 pixels, so it does not see how a browser smooths a line, and does see one that has moved.
    """
    opened = opens()
    opened.add_style_tag(content='svg text { display: none; }')
    found = np.concatenate([drawn(opened, selector) for selector in DRAWINGS.values()])
    if os.environ.get('GOLDEN') == 'write':
        Image.fromarray(found.round().astype(np.uint8)).save(REFERENCE)
    expected = np.asarray(Image.open(REFERENCE), float)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 1
    assert np.abs(found - expected).max() < 40
    opened.add_style_tag(content='.mark { display: none; }')  # what a comparison must not miss: a threshold gone
    place = list(DRAWINGS).index('gauge') * CELLS[1]
    without = drawn(opened, DRAWINGS['gauge'])
    assert np.abs(without - expected[place : place + CELLS[1]]).max() > 40


def test_a_page_of_a_run_loads_itself_again_but_not_from_under_a_reader(browser, folder, tmp_path):
    path = tmp_path / 'report.html'
    path.write_text(page_of('before', stages_in(folder), 0.2), encoding='utf-8')
    opened = browser.new_page()
    opened.goto(path.as_uri())
    opened.get_by_text('Options').first.click()
    path.write_text(page_of('after', stages_in(folder), 0.2), encoding='utf-8')
    opened.wait_for_timeout(600)
    assert opened.locator('h1').inner_text() == 'before'
    opened.get_by_text('Options').first.click()
    opened.get_by_role('heading', name='after').wait_for()
    opened.close()
