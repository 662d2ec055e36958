"""The page of a tuning in a real browser: on a phone's screen figures stand beside the settings they are of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import DESKTOP, PHONE, Page, find_browser

from evals.stats import Estimate
from evals.tuning.page import write_page
from evals.tuning.profile import write_profile
from evals.tuning.records import Tuned, read_asked, read_tuned

from .tunings import HELPS, asked, rows, tuned

MARGIN = 20
"""Pixels beside what the page shows."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(find_browser(), tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tuning with its page."""
    folder = tmp_path_factory.mktemp("pages") / "tuned"
    tuned(asked(rows(folder.parent)), folder, HELPS)
    write_profile(folder, read_asked(folder), read_tuned(folder))
    write_page(folder, read_tuned(folder))
    return folder


@pytest.fixture
def page(browser: Page, written: Path) -> Page:
    browser.look("light", PHONE)
    browser.open(written / "tune.html")
    return browser


def test_a_phone_shows_what_settings_are_worth_without_scrolling_sideways(page: Page) -> None:
    ends = "[...document.querySelectorAll('[aria-labelledby=tried] tbody tr')].map(row => row.children[2]"
    assert page.value(f"Math.max(...{ends}.getBoundingClientRect().right))") <= PHONE[0] - MARGIN, "answers, tokens"
    best = "[...document.querySelectorAll('td.best')].map(cell => cell.offsetHeight)"
    assert page.value(f"Math.max(...{best})") < 200, "not a word a line"


def test_the_whole_profile_is_shown(page: Page) -> None:
    for size in (PHONE, DESKTOP):
        page.look("dark", size)
        assert page.value("(pre => pre.scrollHeight - pre.clientHeight)(document.querySelector('pre'))") <= 1


def test_both_schemes_are_drawn_and_nothing_is_amiss(page: Page, written: Path) -> None:
    for scheme in ("light", "dark"):
        page.look(scheme, DESKTOP)
        assert len(page.screenshot().getcolors(1 << 20) or []) > 50
    page.look("light", PHONE)
    assert page.value("document.documentElement.scrollWidth") == PHONE[0]
    assert page.complaints == []


# ---- what it says


def told(folder: Path, tuned: Tuned) -> str:
    return write_page(folder, tuned).read_text()


def test_the_legend_names_what_is_drawn_alone(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "copy")
    found = read_tuned(written)
    assert any(not trial.stands for trial in found.trials)
    assert "given up, on fewer" in told(tmp_path / "copy", found)
    stands = found.model_copy(update={"trials": tuple(trial for trial in found.trials if trial.stands)})
    assert "given up, on fewer" not in told(tmp_path / "copy", stands)


def test_an_interval_without_width_feigns_no_certainty(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "copy")
    found = read_tuned(written)
    alike = Estimate(value=1.0, low=1.0, high=1.0, problems=8, clusters=8)
    trials = tuple(trial.model_copy(update={"answer": alike}) for trial in found.trials)
    page = told(tmp_path / "copy", found.model_copy(update={"trials": trials}))
    assert page.count("all alike") >= len(trials)
    assert ">100.0</data> to" not in page
