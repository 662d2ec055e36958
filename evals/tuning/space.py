"""What is tried: families of settings that need generation of their own, and variants that cost nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from evals.errors import ReplayError
from evals.replay.variants import Variant
from rsa.errors import ConfigError
from rsa.policies import registry
from rsa.results import Record
from rsa.settings.config import RSAConfig

MOST_FAMILIES = 16
"""The most families of a tuning: each is recorded on the first problems."""
AXES = ("n", "c", "beta", "tau")
"""The settings in which families differ."""
_SURE = ".95"
_WITHOUT_ROUNDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("vote", ()),
    ("vote", ("decided",)),
    ("vote", (f"beta:{_SURE}",)),
    ("weighted", ()),
)
_WITH_ROUNDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("vote", ()),
    ("vote", ("decided",)),
    ("vote", (f"bayes:{_SURE}",)),
    ("vote", (f"bayes:{_SURE}", "decided")),
    ("weighted", ()),
    ("pooled", ()),
    ("vote", ("answered",)),
)
"""What is tried unless somebody says: `select` and `stop`."""


class Family(Record):
    """Settings that need generation of their own. `t` is the most rounds that are recorded."""

    n: int
    c: int
    t: int
    beta: int
    tau: int

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"n{self.n}-c{self.c}-beta{self.beta}-tau{self.tau}"


def families(base: RSAConfig, axes: Mapping[str, Sequence[int]]) -> list[Family]:
    """Every combination that makes sense, first the one that tuning starts from.

    base  that one's settings: with the first value of each axis.
    axes  values of some of `AXES`; without any, the base's own, and half of it for c, beta and tau.

    Raises ConfigError for more than MOST_FAMILIES.
    """
    values = {name: tuple(dict.fromkeys(axes.get(name) or _usual(base, name))) for name in AXES}
    combinations = [dict(zip(AXES, chosen, strict=True)) for chosen in product(*values.values())]
    if base.t == 0:  # nobody reads a tail
        combinations = [{**each, "c": 1, "tau": 1} for each in combinations]
    found = list(dict.fromkeys(Family(t=base.t, **each) for each in combinations if _makes_sense(each)))
    if len(found) > MOST_FAMILIES:
        raise ConfigError(
            f"n, c, beta and tau have {len(found)} combinations, each of which would be recorded: {MOST_FAMILIES} at "
            "most; give fewer values"
        )
    return found


def _usual(base: RSAConfig, name: str) -> tuple[int, ...]:
    value = getattr(base, name)
    return (value,) if name == "n" or value < 2 else (value, value // 2)


def _makes_sense(chosen: Mapping[str, int]) -> bool:
    return 1 <= chosen["c"] <= chosen["n"] and 1 <= chosen["tau"] <= chosen["beta"]


def variants(
    config: RSAConfig, stops: Sequence[tuple[str, ...]] = (), selects: Sequence[str] = (), *, confidence: bool
) -> list[Variant]:
    """What can be decided again of a family's record, each once.

    config          that it was recorded with.
    stops, selects  policies to try; without any, the usual ones.
    confidence      of the candidates is recorded.

    Raises ConfigError for a policy that is asked for and fits nowhere.
    """
    found: list[Variant] = []
    for t in range(config.t + 1):
        usual = _WITH_ROUNDS if t else _WITHOUT_ROUNDS
        selected = dict.fromkeys(selects or [select for select, _ in usual])
        stopped = dict.fromkeys(stops or [stop for _, stop in usual])
        pairs = product(selected, stopped) if selects or stops else usual
        found += [Variant(t=t, select=select, stop=stop) for select, stop in pairs]
    if not confidence:
        found = [each for each in found if not registry.select_policy(each.select or "").confidence]
    fewer = [2**power for power in range(config.n.bit_length()) if 2**power < config.n]
    found += [Variant(t=0, n=n, select="vote", stop=()) for n in fewer]
    fitting = [variant for variant in dict.fromkeys(found) if _fits(variant, config)]
    for name, wanted, there in (
        ("select", selects, {each.select for each in fitting}),
        ("stop", [",".join(stop) for stop in stops], {",".join(each.stop or ()) for each in fitting}),
    ):
        for spec in wanted:
            if spec not in there:
                raise ConfigError(
                    f"{name} = {spec} cannot be tried: it needs the model, or what is not recorded, or goes with "
                    "nothing else that is tried"
                )
    return fitting


def _fits(variant: Variant, config: RSAConfig) -> bool:
    """Whether its policies fit each other, and what was recorded."""
    try:
        variant.settings(config)
    except (ConfigError, ReplayError):
        return False
    return True


def same_answers(variant: Variant) -> Variant:
    """The variant whose answers this one gives, whatever the problem: a decided round has that of the whole one."""
    return variant.model_copy(update={"stop": tuple(spec for spec in variant.stop or () if spec != "decided")})


def settings_of(family: Family, variant: Variant) -> dict[str, Any]:
    """What a run is told to be of a family and a variant; settings that nobody would look at are the family's."""
    t, n = variant.t if variant.t is not None else family.t, variant.n or family.n
    return {
        "n": n,
        "c": min(family.c, n),
        "t": t,
        "beta": family.beta,
        "tau": family.tau,
        "select": variant.select or "vote",
        "stop": list(variant.stop or ()),
    }


def label(family: Family, variant: Variant) -> str:
    """All that matters of both, in words: two of one label are the same run."""
    told = settings_of(family, variant)
    names = ("n", "c", "t", "beta", "tau") if told["t"] else ("n", "t", "beta")
    words = [f"{name} {told[name]}" for name in names]
    words += [f"stop {','.join(told['stop'])}"] if told["stop"] else []
    words += [f"select {told['select']}"] if told["select"] != "vote" else []
    return ", ".join(words)
