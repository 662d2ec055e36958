"""`python -m rsa` is the `rsa` command."""

from __future__ import annotations

from rsa.cli import main

main()
