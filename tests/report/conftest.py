"""A small project and its page, made once; a browser where there is one."""

from __future__ import annotations

import os

import chromium
import pytest
from report_files import project

from safe_align.config import parse
from safe_align.evaluate.report import ReportConfig, main


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """The project; nobody writes into it."""
    return project(tmp_path_factory.mktemp('report') / 'project')


@pytest.fixture(scope='session')
def page(folder, tmp_path_factory):
    """Its page."""
    target = tmp_path_factory.mktemp('page') / 'report.html'
    assert main(parse(ReportConfig, [str(folder), '--output_file', str(target)])) == 0
    return target


@pytest.fixture(scope='module')  # playwright's event loop stays in the way of others while it is open
def browser():
    path = chromium.found()
    if path is None:
        needed = os.environ.get('SAFE_ALIGN_NEED_BROWSER') == '1'  # an assert would tell the whole environment
        (pytest.fail if needed else pytest.skip)('needs chromium')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=chromium.ARGUMENTS)
        yield opened
        opened.close()
