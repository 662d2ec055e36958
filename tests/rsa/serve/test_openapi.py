"""`/openapi.json` says what the server does, and a fuzzer that reads it finds nothing else."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import processes
from jsonschema import Draft202012Validator
from serving import served_process
from starlette.routing import Route

from rsa.serve.app import routes
from rsa.serve.openapi import document

PLAY = r"""
from engine.script import Script

def script(request):
    return Script(reasoning="2 and 2 make 4", answer="It is \\boxed{4}.")
"""
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "allow_header_conformance"
)


def test_every_route_is_described() -> None:
    served = {
        (re.sub(r":\w+}", "}", route.path), method.lower())
        for route in routes()
        if isinstance(route, Route) and route.path.startswith("/v1/")
        for method in route.methods or ("GET", "DELETE")
        if method != "HEAD"
    }
    described = {(path, method) for path, methods in document()["paths"].items() for method in methods}
    assert described == served


def test_every_schema_is_one() -> None:
    for schema in document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_a_fuzzer_finds_no_fault(tmp_path: Path) -> None:
    (tmp_path / "play.py").write_text(PLAY)
    schemathesis = shutil.which("st", path=Path(sys.executable).parent)
    with served_process("--model", "play=scripted:play.py", "--runs", "runs", cwd=tmp_path) as (_, url):
        done = processes.run(
            [
                *(schemathesis, "run", f"{url}/openapi.json", "--checks", CHECKS, "--phases", "fuzzing"),
                *("--max-examples", "5", "--seed", "1", "--no-color", "--warnings", "off", "--request-timeout", "30"),
            ],
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout + done.stderr
