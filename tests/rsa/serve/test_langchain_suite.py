"""LangChain's own suite of tests for chat models is green against a server, as far as it applies."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import processes
import pytest
from clients import clients_environment, playing

HELPERS = Path(__file__).parents[2] / "helpers"
PLUGINS = ["pytest_asyncio.plugin", "syrupy", "pytest_socket", "pytest_benchmark.plugin", "pytest_recording.plugin"]


@pytest.mark.timeout(300)
def test_the_suite_of_langchain(tmp_path: Path) -> None:
    """In a process that loads the plugins which it needs: here they would have a say in every test."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", tmp_path, "--noconftest"]
    command += ["-p", "no:cacheprovider", "--disable-plugin-autoload", "--benchmark-disable", "-rfE"]
    command += [word for plugin in [*PLUGINS, "langchain_tests.conftest"] for word in ("-p", plugin)]
    command += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"]
    command.append(HELPERS / "langchain_suite.py")
    with clients_environment(tmp_path) as environment, playing(HELPERS / "langchain_play.py", tmp_path) as url:
        told = {**environment, "OPENAI_BASE_URL": url, "MODEL": "play"}
        done = processes.run(command, env=told, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    assert int((re.findall(r"(\d+) passed", done.stdout) or ["0"])[0]) >= 70, done.stdout[-1000:]
