"""The live page in a real browser, on a real server that runs the built-in model.

One server and one Chromium serve all tests of this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from browser import DESKTOP, PHONE, Page, find_browser
from serving import served_process

pytestmark = pytest.mark.thorough

PROBLEM = "Use 3, 7, 5 and 2 once each to make 24."
SMALL = {"n": 4, "c": 2, "t": 1, "beta": 96, "tau": 48, "seed": 3, "answers": "every"}
KEY = "key-of-the-page"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(find_browser(), tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served_process(cwd=tmp_path_factory.mktemp("server")) as (_, url):
        yield url


@pytest.fixture
def page(browser: Page, server: str) -> Page:
    """The page, open, in a window of a desktop."""
    browser.look("light", DESKTOP)
    browser.open(f"{server}/")
    browser.until("!!document.querySelector('h1')")
    return browser


def start(server: str, problem: str = PROBLEM, **settings: Any) -> str:
    """Start a run beside the page; its id."""
    body = {"model": "nano:rsa", "problem": problem, "settings": {**SMALL, **settings}}
    response = httpx2.post(f"{server}/page/runs", json=body, timeout=60)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def text_of(page: Page, selector: str) -> str:
    return str(page.value(f"document.querySelector({selector!r})?.textContent ?? ''")).strip()


def go_to(page: Page, run: str, state: str = "") -> None:
    page.value(f"location.hash = '#/runs/{run}'")
    page.until(f"document.querySelector('.kicker')?.textContent.includes({run!r})")
    if state:
        page.until(f"document.querySelector('.kicker').textContent.includes({state!r})")


@pytest.fixture(scope="module")
def finished(server: str) -> str:
    """A run that has ended."""
    run = start(server)
    with httpx2.stream("GET", f"{server}/v1/runs/{run}/events", timeout=100) as response:
        for _ in response.iter_lines():
            pass
    return run


def test_a_run_is_started_by_keyboard_and_watched_to_its_answer(page: Page) -> None:
    assert page.value("document.querySelector('details[data-part=new]').open") or page.press("Tab") is None
    page.value("document.querySelector('details[data-part=new]').open = true")
    page.value("document.querySelector('#problem').focus()")
    page.write(PROBLEM)
    for name, value in SMALL.items():
        page.value(f"document.querySelector('form').elements.{name}.value = {json.dumps(str(value))}")
    page.until("document.querySelector('#model').value === 'nano:rsa'")
    page.value("document.querySelector('button[type=submit]').focus()")
    page.press("Enter", text="\r")
    page.until("location.hash.startsWith('#/runs/run_')")
    assert text_of(page, "h1") in (PROBLEM, "")
    page.until("document.activeElement.tagName === 'H1'")
    page.until("document.querySelectorAll('.candidates > li').length >= 4")
    page.until("document.querySelector('.kicker').textContent.includes('finished')")
    assert page.value("document.querySelectorAll('.round').length") == 2
    assert page.value("document.querySelectorAll('.lineage line').length") == 4 * 2
    answer = text_of(page, "[data-part=answer]")
    assert answer in page.value("[...document.querySelectorAll('.ballot bdi')].map(e => e.textContent)")
    assert "of 4 candidates of round 1 agree" in text_of(page, "[data-part=sentence]")
    page.until("document.querySelector('#said').textContent.startsWith('The answer is')")
    assert page.complaints == []


def test_a_candidate_is_read_while_it_writes_and_afterwards(page: Page, server: str) -> None:
    run = start(server, beta=4096, t=0, n=2)
    go_to(page, run)
    page.until("!!document.querySelector('.candidates summary')")
    page.value("document.querySelector('.candidates summary').click()")
    page.until("document.querySelector('.inside pre')?.textContent.length > 20")
    page.until("document.querySelector('.kicker').textContent.includes('finished')")
    page.until("[...document.querySelectorAll('.inside h4')].some(e => e.textContent === 'Reasoning')")
    assert page.complaints == []


def test_a_run_is_stopped_and_gone_on_with(page: Page, server: str) -> None:
    run = start(server, beta=4096, t=3, answers="final")
    go_to(page, run, "running")
    page.until("!document.querySelector('[data-part=stop]').hidden")
    page.value("document.querySelector('[data-part=stop]').click()")
    page.until("document.querySelector('.kicker').textContent.includes('stopped')")
    page.value("document.querySelector('[data-part=resume]').click()")
    page.until("document.querySelector('.kicker').textContent.includes('running')")
    page.value("document.querySelector('[data-part=stop]').click()")
    page.until("document.querySelector('.kicker').textContent.includes('stopped')")


def test_what_a_policy_decided_is_told_and_is_no_warning(page: Page, server: str) -> None:
    go_to(page, start(server, stop="consensus:.1", beta=256), "finished")
    page.until("document.querySelector('[data-part=decisions]').textContent.includes('consensus:.1')")
    assert text_of(page, "[data-part=decisions]").startswith("Decided: the run ends after round 0 by consensus:.1")
    assert page.value("document.querySelector('[data-part=warnings]').hidden")
    assert page.complaints == []


def test_its_report_is_opened(page: Page, finished: str) -> None:
    go_to(page, finished, "finished")
    page.value("document.querySelector('[data-part=report]').click()")
    page.until("location.pathname.startsWith('/page/reports/')")
    page.until("document.readyState === 'complete'")
    assert text_of(page, "h1").startswith("Use 3, 7, 5 and 2")
    assert page.value("getComputedStyle(document.querySelector('.big')).fontWeight") == "600", "its style may apply"


def test_runs_are_listed(page: Page, server: str, finished: str) -> None:
    row = f".runs a[href='#/runs/{finished}']"
    page.until(f"!!document.querySelector({row!r})")
    assert "finished" in text_of(page, row)
    assert PROBLEM in text_of(page, row)
    page.value(f"document.querySelector({row!r}).focus()")
    page.press("Enter", text="\r")
    page.until(f"location.hash === '#/runs/{finished}'")


def test_what_the_server_refuses_is_said_at_its_field(page: Page) -> None:
    page.value("document.querySelector('details[data-part=new]').open = true")
    page.value("document.querySelector('form').requestSubmit()")
    assert text_of(page, "#problem-error") == "Write a problem first."
    page.until("document.querySelectorAll('#model option').length > 0")
    page.value(
        "(f => { f.problem.value = 'What is 2 + 2?'; f.tau.value = '100'; f.beta.value = '10' })(document.forms[0])"
    )
    page.value("document.querySelector('form').requestSubmit()")
    page.until("document.querySelector('[data-part=form-error]').textContent.includes('tau')")
    assert page.value("location.hash") in ("", "#/")


@pytest.mark.parametrize("view", ["home", "run"])
def test_light_dark_and_narrow(page: Page, finished: str, view: str) -> None:
    """Both schemes are drawn; a phone scrolls down only, and what is to be touched is large enough."""
    if view == "run":
        go_to(page, finished, "finished")
        page.until("!!document.querySelector('.lineage')")
    else:
        page.until("!!document.querySelector('.runs li')")
    page.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    grounds: dict[str, Any] = {}
    for scheme in ("light", "dark"):
        page.look(scheme, DESKTOP)
        image = page.screenshot()
        grounds[scheme] = image.getpixel((5, 5))
        assert len(image.getcolors(1 << 20) or []) > 50
    assert min(grounds["light"]) > 240
    assert max(grounds["dark"]) < 40
    for size in (PHONE, DESKTOP):
        page.look("light", size)
        assert page.value("document.documentElement.scrollWidth") <= size[0]
        wide = f"e.getBoundingClientRect().right > {size[0]} && !e.closest('svg, pre, .unseen, .skip')"
        assert page.value(f"[...document.querySelectorAll('body *')].filter(e => {wide}).map(e => e.outerHTML)") == []
    page.look("light", PHONE)
    targets = "[...document.querySelectorAll('main button:not(.link), main summary, main .runs a')]"
    assert page.value(f"Math.min(...{targets}.map(e => e.getBoundingClientRect().height).filter(h => h))") >= 24


def test_focus_can_be_seen_and_everything_is_reached(page: Page, finished: str) -> None:
    go_to(page, finished, "finished")
    seen = set()
    for _ in range(40):
        page.press("Tab")
        here = "document.activeElement"
        seen.add(page.value(f"{here}.tagName + ' ' + ({here}.dataset.part ?? '')"))
        style = page.value(f"(s => s.outlineStyle + s.outlineWidth)(getComputedStyle({here}))")
        assert style == "solid2px" or page.value(f"{here} === document.body"), style
    assert {"BUTTON report", "SUMMARY ", "A "} <= seen
    for landmark in ("header", "nav[aria-label]", "main", "section[aria-labelledby]"):
        assert page.value(f"!!document.querySelector({landmark!r})"), landmark
    assert page.value("document.querySelectorAll('h1').length") == 1


def test_nothing_moves_for_who_asked_for_that(page: Page, finished: str) -> None:
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.send("Emulation.setEmulatedMedia", features=features)
    go_to(page, finished, "finished")
    durations = "[...document.querySelectorAll('*')].map(e => getComputedStyle(e).transitionDuration)"
    assert page.value(f"{durations}.every(d => d.split(', ').every(each => each === '0s'))")


def test_what_people_and_models_write_stays_text(page: Page, server: str) -> None:
    attack = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script> What is 2 + 2?"
    run = start(server, attack, n=2, t=0)
    go_to(page, run, "finished")
    assert "<img" in text_of(page, "h1")
    assert page.value("document.querySelectorAll('main img, main script').length") == 0
    assert page.value("document.title") != "run"
    assert page.complaints == []


def test_nothing_is_fetched_from_elsewhere_nor_may_be(page: Page, server: str, finished: str) -> None:
    go_to(page, finished, "finished")
    assert all(url.startswith((server, "data:", "about:")) for url in page.requests)
    with pytest.raises(AssertionError, match="TrustedHTML"):
        page.value("document.body.innerHTML = '<p>markup</p>'")
    page.value(
        "document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.invalid/x.png'}))"
    )
    page.until("!document.images[0].complete || document.images[0].naturalWidth === 0")
    refused = [each for each in page.complaints if "Content Security Policy" in json.dumps(each)]
    assert refused


def test_a_key_is_asked_for_once_and_kept_in_the_tab(browser: Page, tmp_path: Path) -> None:
    with served_process(cwd=tmp_path, RSA_API_KEY=KEY) as (_, url):
        browser.look("light", DESKTOP)
        browser.open(f"{url}/")
        browser.until("!!document.querySelector('#key')")
        browser.write("wrong")
        browser.press("Enter", text="\r")
        browser.until("document.querySelector('#key-error')?.textContent.includes('not one of')")
        browser.write(KEY)
        browser.press("Enter", text="\r")
        browser.until("document.querySelector('h1').textContent === 'Runs'")
        browser.until("document.querySelectorAll('#model option').length > 0")
        assert browser.value("sessionStorage.length") == 1
        assert browser.value("localStorage.length + document.cookie.length") == 0
        assert not [asked for asked in browser.requests if KEY in asked]
        browser.value("sessionStorage.clear()")
