"""Texts that are no puzzle: nano learns to say so instead of inventing an answer."""

from random import Random

from examples.nano.wording import WORDS

REASONING = "I only know number puzzles.\n"
ANSWER = "No answer."

_O = WORDS["others"]


def other_text(rng: Random) -> str:
    """A question, some arithmetic of another kind, or noise."""
    kind = rng.random()
    if kind < 0.4:
        return _fill(rng, rng.choice(_O["questions"]))
    if kind < 0.65:
        a, b, c = (rng.randint(1, 10 ** rng.randint(1, 3)) for _ in range(3))
        return rng.choice(_O["numeric"]).format(a=a, b=b, c=c)
    if kind < 0.8:
        return " ".join(_word(rng) for _ in range(rng.randint(1, 25))) + rng.choice(("", ".", "?", "!"))
    if kind < 0.9:
        return "".join(rng.choice(_O["symbols"]) for _ in range(rng.randint(1, 20)))
    if kind < 0.95:
        return (
            "".join(
                rng.choice(_O["letters"] + _O["symbols"] + "0123456789  ") for _ in range(rng.randint(1, 60))
            ).strip()
            or "-"
        )
    return " ".join(_fill(rng, rng.choice(_O["questions"])) for _ in range(rng.randint(2, 4)))


def _fill(rng: Random, template: str) -> str:
    nouns = [_word(rng) if rng.random() < 0.4 else rng.choice(_O["nouns"]) for _ in range(template.count("{}"))]
    return template.format(*nouns)


def _word(rng: Random) -> str:
    word = "".join(rng.choice(_O["letters"]) for _ in range(rng.randint(1, 9)))
    return word.capitalize() if rng.random() < 0.2 else word
