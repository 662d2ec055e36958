"""nano's tokenizer, training texts and loss masks; and that its weights belong to them. Needs no torch."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from evals.tasks import chain, countdown, sums
from examples.nano import data, export, others, tokenizer, traces, wording

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "engine" / "weights" / "nano"
PROBLEM = countdown.CountdownProblem((7, 5, 9, 2), 24)
PLAY = (countdown.Step(7, "*", 5, 35), countdown.Step(35, "-", 9, 26), countdown.Step(26, "-", 2, 24))
MISS = (countdown.Step(9, "-", 7, 2), countdown.Step(2, "*", 5, 10), countdown.Step(10, "+", 2, 12))


@pytest.fixture(scope="module")
def nano() -> Tokenizer:
    return Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))


@pytest.fixture(scope="module")
def wrapped() -> Any:
    from mlx_lm.utils import load_tokenizer

    return load_tokenizer(WEIGHTS)


# ---------------------------------------------------------------- tokenizer


@pytest.mark.thorough
def test_the_shipped_tokenizer_is_what_the_recipe_makes(nano: Tokenizer) -> None:
    """The weights know this vocabulary only: whoever changes the texts it is made from must not ship another one."""
    made = tokenizer.build(tokenizer.sample_texts())
    assert json.loads(made.to_str()) == json.loads(nano.to_str())
    assert json.loads((WEIGHTS / "tokenizer_config.json").read_text()) == tokenizer.tokenizer_config()


@given(st.text(max_size=80))
@settings(deadline=None)
def test_every_text_survives_the_round_trip(text: str) -> None:
    nano = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    assert nano.decode(nano.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


@given(st.text(alphabet="0123456789 ,.+-*/=\nab", max_size=60))
def test_a_digit_is_always_alone(text: str) -> None:
    nano = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    tokens = nano.encode(text, add_special_tokens=False).tokens
    assert sum(token.isdigit() for token in tokens) == sum(character.isdigit() for character in text)


def test_special_ids(nano: Tokenizer) -> None:
    assert [nano.token_to_id(token) for token in tokenizer.SPECIAL] == [0, 1, 2, 3, 4, 5]
    assert nano.get_vocab_size() == export.CONFIG["vocab_size"] == 512
    assert nano.encode("x").ids[0] == tokenizer.BOS_ID


@pytest.mark.thorough
def test_mlx_lm_sees_a_thinking_tokenizer(wrapped: Any) -> None:
    assert wrapped.has_thinking
    assert (wrapped.think_start, wrapped.think_end) == ("<think>", "</think>")
    assert wrapped.eos_token_ids == {tokenizer.EOS_ID}


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_training_renders_as_the_chat_template_does(wrapped: Any, thinking: bool, system: str | None) -> None:
    messages = [{"role": "user", "content": "Make 24 from the numbers 3, 7, 5, 2."}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    rendered = wrapped.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    assert rendered == traces.chat(messages[-1]["content"], thinking, system)


def test_training_prompts_are_the_frameworks_own() -> None:
    from rsa.problem import Problem
    from rsa.prompts import load_prompts

    prompts, book = load_prompts("math"), traces.PromptBook()
    problem = Problem("Make 24 from 3, 7, 5, 2.")
    for tails in ([], ["9-7=2"], ["9-7=2\n", "1 add 5: 48\n", "x"]):
        (message,) = prompts.aggregate(problem, tails) if tails else prompts.initial(problem)
        assert message.text == book.user(problem.text, tails)


# ---------------------------------------------------------------- texts


def test_an_attempt_is_a_line_that_reads_back(nano: Tokenizer) -> None:
    line = traces.attempt(PLAY, 24)
    assert line == "7*5=35, 35-9=26, 26-2=24, yes\n"
    assert traces.read_attempt(PROBLEM, line.rstrip("\n")) == PLAY
    assert len(nano.encode(line, add_special_tokens=False).ids) <= 25


@pytest.mark.parametrize(
    "line",
    [
        "7*5=35, 35-9=26, 26-3=23, no",  # 3 is not there
        "7*5=36, 36-9=27, 27-2=25, no",  # wrong product
        "7*5=35, 35-9=26, yes",  # one number unused
        "5-7=2, 9-2=7, 7-2=5, no",  # negative
        "9/2=4, 7*5=35, 35-4=31, no",  # inexact
        "7*5=35, 35-9=26, 26-2=24",  # cut off
        "",
    ],
)
def test_an_unsound_attempt_is_not_read(line: str) -> None:
    assert traces.read_attempt(PROBLEM, line) is None


@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_failed_attempts_are_sound_and_fail(seed: int) -> None:
    rng = Random(seed)
    problem = countdown.generate(rng, "train")
    for play in traces.failed_plays(rng, problem, 5):
        assert play[-1].result != problem.target
        assert traces.read_attempt(problem, traces.attempt(play, problem.target).rstrip("\n")) == play


def test_the_furthest_sound_step_of_a_tail() -> None:
    problem = chain.ChainProblem(43, (chain.Op("+", 5), chain.Op("*", 3), chain.Op("-", 7)))
    assert traces.list_lines(problem) == ["1 add 5: 48\n", "2 multiply by 3: 47\n", "3 subtract 7: 40\n"]
    assert traces.furthest(problem, "add 5: 48\n2 multiply by 3: 47\n3 subtract 7: 4") == 2
    assert traces.furthest(problem, "1 add 5: 48\n2 multiply by 3: 46\n3 subtract 7: 39\n") == 1
    assert traces.furthest(problem, "nothing") == 0


def test_sums_are_worked_off_line_by_line() -> None:
    problem = sums.SumsProblem((4821, 933, -120))
    assert traces.list_lines(problem) == ["1 add 4821: 4821\n", "2 add 933: 5754\n", "3 subtract 120: 5634\n"]
    assert traces.furthest(problem, "1\n2 add 933: 5754\n3 subtract 120: 5624\n") == 2


@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_spoiled_lines_hold_one_slip_and_what_follows_from_it(seed: int) -> None:
    rng = Random(seed)
    problem = rng.choice((chain, sums)).generate(rng, "train", rng.randint(3, 30))
    sound = traces.list_lines(problem)
    spoiled = traces.spoiled_lines(rng, problem, 1, len(sound))
    wrong = [a != b for a, b in zip(sound, spoiled, strict=True)]
    first = wrong.index(True) if any(wrong) else len(wrong)
    assert traces.furthest(problem, "".join(spoiled)) >= first
    assert [line.split(":")[0] for line in spoiled] == [line.split(":")[0] for line in sound]


def test_what_failed_attempts_chose_carries_no_loss() -> None:
    pieces = traces.attempt_pieces(MISS, 24)
    assert "".join(text for text, _ in pieces) == traces.attempt(MISS, 24)
    assert "".join(text for text, loss in pieces if loss) == "2, 10, 12, no\n"
    assert all(loss for _, loss in traces.attempt_pieces(PLAY, 24))


def test_the_last_sum_of_a_hopeless_attempt_is_learned() -> None:
    """Without this the model bends the last sum until it fits: with six numbers every sixth attempt was unsound."""
    learned = "".join(text for text, loss in traces.missed_pieces(Random(1), MISS, 24) if loss)
    assert learned.endswith("10+2=12, no\n")


# ---------------------------------------------------------------- samples


def test_samples_end_in_an_answer_and_come_from_the_train_split(
    nano: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    for module in (countdown, chain, sums):
        original = module.split_of
        monkeypatch.setattr(module, "split_of", lambda p, original=original: drawn.append(original(p)) or original(p))
    mixture = data.Mixture(3)
    for _ in range(300):
        ids, flags = mixture.sample()
        assert len(ids) == len(flags)
        assert ids[0] == tokenizer.BOS_ID
        assert ids[-1] == tokenizer.EOS_ID
        assert flags[-1], "the end of the answer is always learned"
        assert not any(flags[: ids.index(tokenizer.SPECIAL.index("<think>"))]), "the prompt never is"
    assert drawn.count("train") >= 250  # `generate` also asks about those it throws away


def test_answers_of_full_samples_are_right(nano: Tokenizer) -> None:
    mixture, right = data.Mixture(4), 0
    rng = Random(5)
    for _ in range(50):
        problem, play = countdown.generate_with_play(rng, "train")
        tails, pieces = mixture.countdown_tails(problem, play, 4, 64)
        assert len(tails) == 4
        assert all(len(mixture.encode(tail)) <= 66 for tail in tails)  # a tail may split otherwise when read again
        text = "".join(piece for piece, _ in pieces)
        right += bool(countdown.check(problem, text.partition("</think>")[2].removesuffix("<|im_end|>")))
    assert right == 50


def test_a_false_claim_never_counts_as_an_attempt_that_worked() -> None:
    mixture = data.Mixture(6)
    for _ in range(100):
        line, _ = mixture.false_claim(MISS, 24)
        play = traces.read_attempt(PROBLEM, line.rstrip("\n"))
        assert play is None or play[-1].result != 24


def test_batches_are_rows_of_one_length() -> None:
    row, ids, flags = next(data.batches(data.Mixture(7), tokens=7680))
    assert row in data.ROWS
    assert ids.shape == flags.shape == (7680,)
    assert (ids.reshape(-1, row)[:, 0] == tokenizer.BOS_ID).all()
    assert not flags[ids == 0].any()


def test_held_out_wordings_are_never_trained_on() -> None:
    held = [text for text, trained in (*countdown.PHRASINGS, *chain.PHRASINGS) if not trained]
    openings = [
        text.split("{")[0].lower() for text in held if not text.startswith(("With {", "Target {", "Please make {"))
    ]
    rng = Random(8)
    for _ in range(3000):
        problem = countdown.generate(rng, "train")
        text = data.worded(rng, problem)
        assert not any(text.lower().startswith(opening) for opening in openings)
        assert "four basic operations" not in text
        assert text != f"Target {problem.target}, numbers {', '.join(map(str, problem.numbers))}."
    for _ in range(300):
        text = wording.chain_text(rng, chain.generate(rng, "train"))
        assert not any(text.lower().startswith(opening) for opening in openings)
        text = wording.sums_text(rng, sums.generate(rng, "train"))
        assert not text.lower().startswith(("please total this list", "grand total of"))


def test_other_texts_get_no_box() -> None:
    mixture = data.Mixture(9)
    for _ in range(50):
        ids, _ = mixture.other()
        assert mixture.decode(ids).endswith((f"{others.ANSWER}<|im_end|>", f"{traces.UNSOLVED}<|im_end|>"))


# ---------------------------------------------------------------- the shipped files


def test_the_weights_fit_the_config_and_the_size_limit() -> None:
    assert json.loads((WEIGHTS / "config.json").read_text()) == export.CONFIG
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= export.MAX_BYTES
    with (WEIGHTS / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    assert shapes["model.embed_tokens.weight"] == [512, 256]
    assert shapes["model.layers.7.mlp.experts.gate_up_proj"] == [4, 1024, 256]
    assert "lm_head.weight" not in shapes
    assert 14_500_000 < sum(_size(shape) for shape in shapes.values()) < 15_000_000


def _size(shape: Sequence[int]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total


def test_the_golden_file_matches_the_tokenizer(nano: Tokenizer) -> None:
    entries = json.loads((ROOT / "tests" / "golden" / "nano_greedy.json").read_text())
    assert len(entries) == 7
    for entry in entries:
        assert nano.encode(entry["prompt"]).ids == entry["prompt_ids"]
        assert nano.decode(entry["greedy_ids"], skip_special_tokens=False) == entry["greedy_text"]
        assert len(entry["last_logits_of_prompt"]) == 512
        assert entry["smallest_gap"] > 0.1
