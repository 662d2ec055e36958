"""Reports in a real browser: both schemes, a phone's width, no request and no complaint.

One Chromium serves all tests of this file. It is driven over the DevTools protocol through a pair of pipes, so nothing
but the standard library is needed for it.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

import pytest
from PIL import Image
from processes import started

from evals.report import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip
PIPES = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 10) for pipe in sys.argv[1:3]]
for place, pipe in enumerate(pipes, 3):
    os.dup2(pipe, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes the browser, with the protocol's pipes where it looks for them: file descriptors 3 and 4."""
DESKTOP, PHONE = (1280, 900), (360, 740)
PAGES = ("evaluation", "solved")


class Page:
    """A tab of a browser that this process started. `complaints` and `requests` are what it had to say and to fetch."""

    def __init__(self, browser: str, profile: Path) -> None:
        to_browser, self._ours = os.pipe()
        ours, from_browser = os.pipe()
        command = [browser, *FLAGS, f"--user-data-dir={profile}"]
        words = [sys.executable, "-c", PIPES, to_browser, from_browser, *command]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = ExitStack()
        self._process.enter_context(started(words, pass_fds=(to_browser, from_browser), **silent))
        os.close(to_browser)
        os.close(from_browser)
        self._answers: IO[bytes] = os.fdopen(ours, "rb", buffering=0)
        self._unread = b""
        self._ids = itertools.count(1)
        self._session: str | None = None
        self.complaints: list[Any] = []
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.close()
        self._answers.close()
        os.close(self._ours)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call the browser and wait for what it returns."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._ours, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, path: Path) -> None:
        """Load a file, and wait until it is loaded."""
        self.complaints, self.requests = [], []
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=path.as_uri())
        while self.value("document.readyState") != "complete" or self.value("location.protocol") != "file:":
            self._note(self._receive())

    def look(self, scheme: str = "light", size: tuple[int, int] = DESKTOP, media: str = "") -> None:
        """Choose light or dark, the window's size, and `print`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=media, features=features)
        width, height = size
        mobile = size == PHONE
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is worth. It runs from outside: the page itself allows no script."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, *, whole: bool = False) -> Image.Image:
        """The window, or the whole page."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("RGB")

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            more = os.read(self._answers.fileno(), 1 << 20)
            assert more, "the browser ended"
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method", ""), event.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(parameters)
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])


def find_browser() -> str:
    """The browser to test with. Without one tests are skipped, but not where everything must be tested."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        message = f"no browser: none of {', '.join(NAMES)} is installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(find_browser(), tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def reports(evaluation: Path, solved: Path) -> dict[str, Path]:
    return {"evaluation": write_report(evaluation), "solved": write_report(solved)}


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
