"""Clients of agents against a real server: the examples print what they should, and LangChain's own suite is green.

Each client is in a short-lived process of its own, for their imports take seconds, and none reaches beyond loopback:
whatever would go elsewhere meets a proxy that remembers it.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import processes
import pytest
from serving import served_process

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "agents"
PAGE = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
CLIENTS = ["chat", "responses", "with_pydantic_ai", "with_langchain", "with_dspy", "with_openai_agents"]
SAYS = {"with_dspy": "391"}
QUIET = {
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}
"""Without these, importing is enough for some to ask the network."""
pytestmark = [pytest.mark.thorough, pytest.mark.timeout(300)]


class Elsewhere:
    """A proxy that lets nothing through, and counts who asked."""

    def __init__(self, listener: socket.socket) -> None:
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener

    def listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            with connection:
                connection.settimeout(5)
                self.asked.append(connection.recv(200).decode(errors="replace").partition("\r\n")[0])


@contextmanager
def nothing_beyond_loopback() -> Iterator[Elsewhere]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        elsewhere = Elsewhere(listener)
        thread = threading.Thread(target=elsewhere.listen)
        thread.start()
        yield elsewhere
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert elsewhere.asked == []


Play = Callable[..., processes.Done]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("home")
    with nothing_beyond_loopback() as elsewhere:
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), elsewhere.url)
        yield {
            **QUIET,
            **proxies,
            "NO_PROXY": "127.0.0.1",
            "HOME": str(home),
            "DSPY_CACHEDIR": str(home),
            "PATH": "/usr/bin:/bin",
        }


@contextmanager
def playing(script: Path, folder: Path) -> Iterator[str]:
    """The URL of the API of a server whose model `play` plays a script."""
    with served_process("--model", f"play=scripted:{script}", "--runs", folder / "runs", cwd=folder) as (_, url):
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with playing(EXAMPLES / "play.py", tmp_path_factory.mktemp("served")) as url:
        yield url


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_speaks_to_a_run(client: str, url: str, environment: Mapping[str, str]) -> None:
    told = {**environment, "OPENAI_BASE_URL": url, "MODEL": "play:rsa"}
    done = processes.run([sys.executable, EXAMPLES / f"{client}.py"], env=told, check=True)
    assert done.stdout.strip() == SAYS.get(client, "The result is 391."), done.stderr


def test_the_library_in_a_tool() -> None:
    done = processes.run([sys.executable, EXAMPLES / "library_tool.py"], check=True)
    *rounds, answer, stopped = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in rounds] == ["round 0", "round 1"]
    assert eval(answer.replace("\\times", "*").partition("=")[0]) == 24
    assert stopped == "no answer within 0 s"


def test_the_suite_of_langchain(tmp_path: Path, environment: Mapping[str, str]) -> None:
    plugins = ["pytest_asyncio.plugin", "syrupy", "pytest_socket", "pytest_benchmark.plugin", "pytest_recording.plugin"]
    suite = ROOT / "tests" / "helpers" / "langchain_suite.py"
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", tmp_path, "--noconftest"]
    command += ["-p", "no:cacheprovider", "--disable-plugin-autoload", "--benchmark-disable", "-rfE"]
    command += [word for plugin in [*plugins, "langchain_tests.conftest"] for word in ("-p", plugin)]
    for option in ("asyncio_mode=auto", "asyncio_default_test_loop_scope=session"):
        command += ["-o", option]
    with playing(ROOT / "tests" / "helpers" / "langchain_play.py", tmp_path) as url:
        told = {**environment, "OPENAI_BASE_URL": url, "MODEL": "play"}
        done = processes.run([*command, suite], env=told, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    assert int((re.findall(r"(\d+) passed", done.stdout) or ["0"])[0]) >= 40, done.stdout[-1000:]


@pytest.mark.parametrize("example", [*CLIENTS, "library_tool", "play"])
def test_the_page_about_agents_has_every_example(example: str) -> None:
    assert f"examples/agents/{example}.py" in PAGE


def test_what_the_page_shows_is_in_the_examples() -> None:
    shown = re.findall(r"```py\n(.*?)```", PAGE, flags=re.DOTALL)
    programs = "\n".join(path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.py")))
    assert shown
    for block in shown:
        assert block.strip() in programs, block
