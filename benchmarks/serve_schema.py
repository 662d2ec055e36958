"""schemathesis on a server's own description of itself, at length.

    python benchmarks/serve_schema.py [--examples 200] [--seed 1] [--workers 1]

A real `rsa serve` on loopback, whose model plays a script, is sent what `/openapi.json` allows and what it forbids
(boundaries, random values, chains of requests), and every answer is held against the description. The last line is
JSON; the exit code is 1 if an answer is a fault of the server or is not as described.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from serve_fuzz import PLAY, served

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,allow_header_conformance,use_after_free,ensure_resource_availability"
)
"""All that hold here. Two do not: the description is no proof that a request is right (its conversation may end with
the wrong turn), and without a key nothing can be asked with a wrong one."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    program = shutil.which("st", path=Path(sys.executable).parent)
    if program is None:
        parser.error("schemathesis is not installed: make check installs it")
    with tempfile.TemporaryDirectory() as name, served(Path(name), PLAY) as (server, url, log):
        began = time.perf_counter()
        done = subprocess.run(
            [
                *(program, "run", f"{url}/openapi.json", "--checks", CHECKS, "--phases", "coverage,fuzzing,stateful"),
                *("--max-examples", str(asked.examples), "--seed", str(asked.seed), "--workers", str(asked.workers)),
                *("--continue-on-failure", "--no-color", "--warnings", "off", "--request-timeout", "60"),
            ],
            cwd=name,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
        alive, told = server.poll() is None, log.read_text(errors="replace")
    print(done.stdout[-8000:])
    cases = re.search(r"(\d+) generated", done.stdout)
    row = {
        "cases": int(cases[1]) if cases else 0,
        "well": done.returncode == 0 and alive and "Traceback" not in told,
        "alive": alive,
        "seconds": round(seconds, 1),
    }
    facts = {"python": platform.python_version(), "cpus": os.cpu_count(), "seed": asked.seed}
    print(json.dumps({**facts, **row}))
    return 0 if row["well"] else 1


if __name__ == "__main__":
    sys.exit(main())
