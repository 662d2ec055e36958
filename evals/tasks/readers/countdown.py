"""Reading Countdown: a target, and the numbers to make it from."""

from __future__ import annotations

from evals.tasks.countdown import MAX_SIZE, CountdownProblem
from evals.tasks.readers.phrases import LIST, Scanner, either, numbers_in

MAX_NUMBERS = MAX_SIZE + 2
"""The most numbers of a puzzle: with more of them, or with larger ones, the checker does not read an answer."""
MAX_VALUE = 10**6

_VERBS = (
    "make", "get", "get to", "reach", "hit", "obtain", "produce", "form", "build", "create", "arrive at", "come to",
    "write", "express", "end up with", "construct", "achieve", "find", "compute", "give", "generate",
    "find a way to make", "find an expression that equals", "create an equation that equals",
)  # fmt: skip
_GOALS = (
    "the target", "the number", "exactly", "a total of", "the result", "the value", "a result of", "a formula for",
    "a sum that gives", "an expression equal to", "an expression worth", "an expression that equals",
)  # fmt: skip
_TARGETS = (
    "target", "target is", "the target is", "target number", "goal", "goal is", "the goal is", "equals", "result",
    "answer should be", "should equal", "must give", "wanted", "aim", "desired value",
)  # fmt: skip
_OPENERS = (
    "please", "can you", "can i", "could you", "hi", "how can i", "how can we", "how can you", "how do i", "how do we",
    "how do you", "how would you", "i need to", "help me", "help me to", "let's", "try to", "is it possible to",
    "is there a way to", "your task", "your goal is to", "puzzle", "challenge", "question", "show me how to",
    "tell me how to", "i want to", "i want you to", "countdown", "play countdown with me", "which expression",
    "what is a way to", "you have to", "we must", "now", "find out how to", "work out how to", "and", "to", "thanks",
)  # fmt: skip
_LINKS = (
    "from", "using", "with", "out of", "by combining", "given", "by using", "use", "take", "combine", "having",
    "starting from", "i have", "if i have", "we have", "with them", "from them", "from that", "just", "only", "all of",
    "each of", "these", "numbers", "the numbers", "these numbers", "the following numbers", "given numbers",
    "available numbers", "the numbers are", "my numbers are", "here are my numbers", "the digits", "digits", "tiles",
    "the cards", "cards", "the four basic operations",
)  # fmt: skip
_EACH = r"\b(?:each|every)(?:\s+(?:one|number|of\s+(?:them|these)))?"
_USED = r"(?:\s+(?:(?:must|can|may|is|has\s+to)(?:\s+only)?(?:\s+be)?\s+)?used)?"
_ONCE = r"(?:(?:exactly|only|just)\s+)?(?:once|one\s+time)(?:\s+only)?\b"
_RULES = "|".join(
    (
        rf"(?:(?:using|use|with)\s+)?{_EACH}{_USED},?\s+(?:and\s+)?{_ONCE}",
        rf"\b{_ONCE}(?:\s+each\b)?",
        either(("you must use all the numbers", "use all the numbers", "use all of them", "using all of them")),
        either(("the four operations are allowed", "parentheses are allowed", "brackets are fine")),
        r"(?:(?:with|using|and\s+only|only)\s+)?\+\s*,?\s*[-−]\s*,?\s*[*×]\s*,?\s*(?:(?:and|or)\s+)?[/÷]"
        r"(?:\s+are\s+allowed\b)?",
        either(("using basic arithmetic", "by basic arithmetic", "with basic operations")),
    )
)
_SCANNER = Scanner(
    {
        "gap": r"(?:[\s,.;:?!)]|\((?!\d))+",
        "rule": _RULES,
        "cue": rf"(?:{either(_VERBS)}\s+)(?:{either(_GOALS)})?|{either((*_TARGETS, *_GOALS))}|->|=>|→|=",
        "word": either((*_OPENERS, *_LINKS)),
        "numbers": LIST,
    }
)


def read_countdown(text: str) -> CountdownProblem | None:
    """The problem in a tidy text; None if it is no Countdown in known words.

    The target follows what asks for it (`make 24`, `target: 24`, `-> 24`) or comes first (`24 from 3, 7, 5, 2`).
    """
    tokens = _SCANNER.scan(text)
    if tokens is None:
        return None
    places = [place for place, token in enumerate(tokens) if token.kind == "numbers"]
    lists = [numbers_in(tokens[place].text) for place in places]
    asked = [place > 0 and tokens[place - 1].kind == "cue" for place in places]
    if len(lists) != 2 or None in lists or all(asked):
        return None
    if not any(asked) and [token.text.lower() for token in tokens[:2][places[0] :]][1:] == ["from"]:
        asked = [True, False]
    if not any(asked):
        return None
    target, numbers = (lists[0], lists[1]) if asked[0] else (lists[1], lists[0])
    if target is None or numbers is None or len(target) != 1 or len(numbers) > MAX_NUMBERS:
        return None
    return CountdownProblem(numbers, target[0]) if max(numbers) <= MAX_VALUE else None
