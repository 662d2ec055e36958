"""A real browser without a window: Chromium, driven over the DevTools protocol through a pair of pipes, so that nothing
but the standard library is needed for it. It reaches this machine and nothing else.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

import pytest
from PIL import Image
from processes import started

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe",
)  # fmt: skip
PIPES = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 10) for pipe in sys.argv[1:3]]
for place, pipe in enumerate(pipes, 3):
    os.dup2(pipe, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes the browser, with the protocol's pipes where it looks for them: file descriptors 3 and 4."""
_ASK_EVERY_S = 0.02
DESKTOP, PHONE = (1280, 900), (360, 740)


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
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, where: Path | str) -> None:
        """Load a file or a URL, and wait until it is loaded."""
        self.complaints, self.requests = [], []
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=where.as_uri() if isinstance(where, Path) else where)
        while self.value("document.readyState") != "complete" or self.value("location.href") == "about:blank":
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

    def until(self, expression: str) -> Any:
        """Ask again and again until a JavaScript expression is worth something; the test's time limit ends it."""
        while not (found := self.value(expression)):
            if self._unread or select.select([self._answers], [], [], _ASK_EVERY_S)[0]:
                self._note(self._receive())
        return found

    def press(self, key: str, *, text: str = "") -> None:
        """Press a key, as a person would: Tab, Enter, a letter."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            down = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **down)

    def write(self, text: str) -> None:
        """Write into what has the focus."""
        self.send("Input.insertText", text=text)

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
