"""Clients of agents against a real server: every example prints what it should.

Each is in a short-lived process of its own, for their imports take seconds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import processes
import pytest
from clients import clients_environment, playing

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "agents"
PAGE = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
CLIENTS = ["chat", "responses", "with_pydantic_ai", "with_langchain", "with_dspy", "with_openai_agents"]
SAYS = {"with_dspy": "391"}
pytestmark = [pytest.mark.thorough, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with clients_environment(tmp_path_factory.mktemp("home")) as environment:
        yield environment


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


@pytest.mark.parametrize("example", [*CLIENTS, "library_tool", "play"])
def test_the_page_about_agents_has_every_example(example: str) -> None:
    assert f"examples/agents/{example}.py" in PAGE


def test_what_the_page_shows_is_in_the_examples() -> None:
    shown = re.findall(r"```py\n(.*?)```", PAGE, flags=re.DOTALL)
    programs = "\n".join(path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.py")))
    assert shown
    for block in shown:
        assert block.strip() in programs, block
