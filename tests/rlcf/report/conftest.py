"""Run folders as the tasks leave them, written without a model, and a browser."""

from types import SimpleNamespace

import pytest

from rlcf.report.main import main
from tests import records
from tests.browser import CHROMIUM, Browser
from tests.tools import mistake


@pytest.fixture
def write_run(tmp_path):
    """Writes a run folder below tmp_path; see `tests.records.write_run`."""
    return lambda *given, **settings: records.write_run(tmp_path, *given, **settings)


@pytest.fixture
def report(tmp_path, capsys):
    """Runs the command. Returns what it printed, and the page's text where there is one."""

    def run(*words):
        main([*map(str, words), "--output", str(tmp_path / "page.html")])
        page = tmp_path / "page.html"
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        return SimpleNamespace(printed=capsys.readouterr().out, page=text, file=page)

    return run


@pytest.fixture
def told(capsys):
    """The one line that a mistake ends with."""
    return lambda *words: mistake(lambda: main([*map(str, words)]), capsys)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; Debian's package chromium has one")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def look(browser):
    """Opens a page and waits until its samples are there. Nothing may have been told or asked for but the page."""

    def open_page(file, **window):
        browser.open(file, **window)
        browser.wait("document.querySelectorAll('.card').length > 0")
        browser.frame()
        return browser

    yield open_page
    assert browser.told == [] and len(browser.requests) == 1
