"""The `rsa` command, and `python -m rsa`."""

from __future__ import annotations

from rsa.command.signals import end_at_once


def main() -> None:
    """Entry point of the `rsa` command."""
    end_at_once()  # before the imports, which take a moment
    from rsa.command.cli import main as command

    command()


if __name__ == "__main__":
    main()
