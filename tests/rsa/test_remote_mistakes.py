"""What is told, in a line, of servers that cannot be used as they are: over real sockets, from the command line."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

import processes
import pytest
from command_line import rsa
from stub_server.faults import FaultPlan
from stub_server.running import running
from stub_server.server import StubServer
from stub_server.shapes import dialect
from stub_server.writing import Writer

from rsa import read_result
from rsa.runlog import read_run

pytestmark = pytest.mark.thorough

SIZES = ("--n", 2, "--c", 1, "--t", 1, "--tau", 20, "--answer-budget", 60)
NOWHERE = "http://model.example/v1"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "RSA_MODEL",
        "SSL_CERT_FILE",
        "ALL_PROXY",
        "NO_PROXY",
        "no_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    Path("problem.txt").write_text("What is 2 + 2?")


def solve(url: str, *more: object, beta: int = 60) -> tuple[int, str]:
    """The exit code, and what stands on standard error."""
    words = ("solve", "problem.txt", "--model", "openai:tiny", "--base-url", url, "--beta", beta, *SIZES, *more)
    done = rsa(*words)
    return done.code, done.err


@contextmanager
def served(server: StubServer, path: str = "/v1") -> Iterator[str]:
    with running(server) as at:
        yield at.url.removesuffix("/v1") + path


@contextmanager
def nobody() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    yield url


def a_web_site() -> StubServer:
    return StubServer(faults=FaultPlan(rate=1.0, kinds=["html"]))


CASES: dict[str, tuple[Callable[[], AbstractContextManager[str]], list[str]]] = {
    "nobody listens": (nobody, ["cannot connect to http://127.0.0.1", "is the server up?"]),
    "a web site": (lambda: served(a_web_site()), ["is no server of the OpenAI API"]),
    "another path": (lambda: served(StubServer(), "/api"), ["/api", "is it the right URL?"]),
    "another model": (lambda: served(StubServer(model="huge")), ["has no model 'tiny'; it has huge"]),
    "a key is wanted": (lambda: served(StubServer(key="k")), ["wants a key", "OPENAI_API_KEY"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_server_that_cannot_be_used_is_told_of_in_a_line(case: str) -> None:
    world, says = CASES[case]
    with world() as url:
        code, err = solve(url)
    assert (code, err.count("\n")) == (4, 1), err
    assert err.startswith("error: ")
    assert all(words in err for words in says), err


def test_a_key_that_is_refused_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    with served(StubServer(key="k")) as url:
        code, err = solve(url)
    assert (code, err.count("\n")) == (4, 1), err
    assert "refuses the key in OPENAI_API_KEY" in err
    assert "sk-mine" not in err


# ---- what works, and what is said of it


@pytest.mark.parametrize("streaming", ["ignored", "refused"])
def test_a_server_without_streaming_works_and_that_is_said_once(streaming: Literal["ignored", "refused"]) -> None:
    with served(StubServer(dialect("vllm", streaming=streaming))) as url:
        code, err = solve(url, "--out", "run")
    assert code in (0, 3), err
    assert err.count("the server does not stream") == 1
    assert read_run("run")[0].model.details["streaming"] is False


def test_budgets_over_a_short_context_are_lowered() -> None:
    with served(StubServer(writer=Writer(context=700))) as url:
        code, err = solve(url, "--out", "run", beta=40_000)
    assert code in (0, 3), err
    assert "lowered: beta 40000 -> " in err
    assert read_result("run").budgets.beta < 700


# ---- certificates and proxies


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=stub -addext subjectAltName=IP:127.0.0.1"
    processes.run(["openssl", *words.split(), "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True)
    both = tmp_path / "both.pem"
    both.write_text((tmp_path / "key").read_text() + (tmp_path / "cert").read_text())
    return both


def test_a_certificate_that_signs_itself_is_trusted_when_it_is_named(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with running(StubServer(tls=context), scheme="https") as server:
        code, err = solve(server.url)
        assert (code, err.count("\n")) == (4, 1), err
        assert "the certificate of https://127.0.0.1" in err
        assert "SSL_CERT_FILE" in err
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("cert")))
        code, err = solve(server.url)
    assert code in (0, 3), err


def test_a_proxy_of_the_environment_is_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(StubServer()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        code, err = solve(NOWHERE)
    assert code in (0, 3), err
    assert proxy.server.seen.asked > 4


def test_a_proxy_that_is_down_is_told_of_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody() as down:
        monkeypatch.setenv("HTTP_PROXY", down.removesuffix("/v1"))
        code, err = solve(NOWHERE)
    assert (code, err.count("\n")) == (4, 1), err
    assert f"cannot connect to {NOWHERE}" in err
    assert "HTTP_PROXY" in err
