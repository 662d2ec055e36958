"""Reports in a real browser: both schemes, a phone's width, no request and no complaint.

One Chromium serves all tests of this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, Page, find_browser

from evals.report import write_report

PAGES = ("evaluation", "calibrated", "solved")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(find_browser(), tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def reports(evaluation: Path, calibrated: Path, solved: Path) -> dict[str, Path]:
    folders = {"evaluation": evaluation, "calibrated": calibrated, "solved": solved}
    return {name: write_report(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("name", PAGES)
def test_light_and_dark_are_both_drawn(page: Page, reports: dict[str, Path], name: str) -> None:
    page.open(reports[name])
    grounds: dict[str, Any] = {}
    for scheme in ("light", "dark"):
        page.look(scheme)
        image = page.screenshot()
        grounds[scheme] = image.getpixel((5, 5))
        colours = image.getcolors(1 << 20) or []
        assert len(colours) > 50, "text and pictures are drawn"
        assert 0.02 < 1 - max(count for count, _ in colours) / (image.width * image.height) < 0.9
    assert min(grounds["light"]) > 240
    assert max(grounds["dark"]) < 40
    plot = "getComputedStyle(document.querySelector('svg.plot text')).fill"
    assert page.value(plot) != (page.look("light"), page.value(plot))[1], "pictures follow the scheme"


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_down_only(page: Page, reports: dict[str, Path], name: str) -> None:
    page.open(reports[name])
    page.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    for size in (PHONE, DESKTOP):
        page.look("light", size)
        assert page.value("document.documentElement.scrollWidth") == size[0]
        wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg, pre, .unseen') && "
        assert page.value(f"{wide} e.getBoundingClientRect().right > {size[0]}).map(e => e.outerHTML)") == []
    captions = "[...document.querySelectorAll('.scroll caption span')].filter(e => !e.closest('.unseen'))"
    assert page.value(f"{captions}.filter(e => e.offsetWidth > e.closest('.scroll').clientWidth).length") == 0
    page.look("light", PHONE)
    smallest = "Math.min(...[...document.querySelectorAll('svg.plot text')].map(t => t.getBoundingClientRect().height))"
    assert page.value(smallest) >= 10, "the type in pictures can be read"


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_asked_for_and_nothing_is_amiss(page: Page, reports: dict[str, Path], name: str) -> None:
    page.open(reports[name])
    page.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.screenshot(whole=True)
    assert [url for url in page.requests if not url.startswith("data:")] == [reports[name].as_uri()]
    assert page.complaints == []
    shown = "[...document.images].filter(image => image.complete && image.naturalWidth && image.height).length"
    assert page.value(shown) == page.value("document.images.length") > 0


def test_a_link_opens_the_problem_it_names(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["evaluation"])
    page.look("light")
    shut = "document.getElementById('p3').closest('details').open"
    assert page.value(shut) is False
    page.value("location.hash = 'p3'")
    assert page.value(shut) is True
    assert len(page.screenshot().getcolors(1 << 20) or []) > 50
    assert page.value("(t => t.top >= 0 && t.top < innerHeight)(document.getElementById('p3').getBoundingClientRect())")


def test_paper_is_white(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["evaluation"])
    page.look("dark", media="print")
    assert page.screenshot().getpixel((5, 5)) == (255, 255, 255)
    assert page.value("getComputedStyle(document.querySelector('.heads')).position") == "static"


def test_a_page_may_not_run_what_it_holds(page: Page, reports: dict[str, Path], tmp_path: Path) -> None:
    """The policy in the page works: were a text to become markup, it still could neither run nor fetch."""
    text = reports["evaluation"].read_text(encoding="utf-8")
    attack = "<script>document.title = 'run'</script><img src='https://example.invalid/x.png'></main>"
    (tmp_path / "attacked.html").write_text(text.replace("</main>", attack), encoding="utf-8")
    page.open(tmp_path / "attacked.html")
    while len(page.complaints) < 2:  # one about the script, one about the image; they come when they come
        assert page.value("document.title") != "run"
    assert not [url for url in page.requests if "example.invalid" in url and not refused(page, url)]


def refused(page: Page, url: str) -> bool:
    """Whether the browser said that the policy forbids it to fetch this."""
    return any(url in json.dumps(complaint) for complaint in page.complaints)
