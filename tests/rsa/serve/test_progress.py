"""What a person reads of a run while it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rsa.serve.progress import ProgressLines


def test_a_run_as_a_person_reads_it(tell: Callable[..., Any]) -> None:
    told = tell(n=2, c=2, t=1)
    lines = ProgressLines()
    events = [
        told.starts(),
        told.begins_round(0),
        told.begins(0),
        told.writes(0, 40, at_s=6.0),
        told.writes(1, 30, at_s=7.0),
        told.ends(0, 100, 8.0),
        told.ends(1, 90, 9.0, status="degenerate"),
        told.ends_round(9.0),
        told.begins_round(1, 9.0),
        told.ends(0, 50, 10.0, "24"),
        told.ends(1, 60, 11.0, "25"),
        told.ends_round(11.0, ("24", 1), ("25", 1)),
        told.finishes(11.0, "24", ("24", 1)),
    ]
    assert "".join(lines.feed(event) for event in events).splitlines() == [
        "Round 1 of 2: 2 attempts.",
        "40 tokens so far; 2 attempts still thinking.",
        "Attempt 1: 100 tokens.",
        "Attempt 2 repeated itself and was cut off after 90 tokens.",
        "Round 2 of 2: 2 attempts, each reading the ends of 2 of the last round.",
        "Attempt 1: 50 tokens, answer 24.",
        "Attempt 2: 60 tokens, answer 25.",
        "Votes: 24 by 1 of 2; 25 by 1 of 2.",
    ]
