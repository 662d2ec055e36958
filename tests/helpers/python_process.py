"""A Python of its own, for what depends on how a process starts."""

from __future__ import annotations

import os
import subprocess
import sys


def run(program: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program without our settings in its environment, but with `more`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RSA_")}
    return subprocess.run(
        [sys.executable, "-c", program], env={**kept, **more}, capture_output=True, text=True, check=False
    )
