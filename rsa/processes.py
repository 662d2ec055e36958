"""Python processes that this package starts: what they need to find it."""

from __future__ import annotations

import os
from pathlib import Path


def python_environment(*more: str) -> dict[str, str]:
    """Ours, with the folder of this package first: a child finds `rsa` also from a checkout, and finds no other package
    of that name. `more`: further folders where it looks for modules."""
    here = str(Path(__file__).resolve().parents[1])
    folders = [here, os.environ.get("PYTHONPATH"), *more]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
