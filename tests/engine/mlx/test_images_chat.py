"""Prompts with images: where they stand, how many tokens they take, and that no text becomes an image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing

from engine.api import ImagePart, Message
from engine.errors import RequestError
from engine.loader import load_engine
from engine.mlx.engine import MLXEngine
from engine.mlx.features import FeatureCache, ImageStore
from engine.mlx.tokenizer import ChatTokenizer

TINY = Path(__file__).resolve().parents[2] / "golden" / "tiny_hf"
VISION = ["<vs>", "<ve>", "<image>"]
CONTENT = (
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<vs><image><ve>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)


@dataclass(frozen=True)
class Sized:
    """An image as wide as its file is long."""

    sha256: str
    tokens: int
    grid: tuple[int, int, int] = (1, 2, 2)

    @property
    def patches(self) -> np.ndarray:
        return np.zeros((4, 588), np.float32)


def png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (84, 56)).save(file, "PNG")
    return file.getvalue()


class Counting:
    """A processor that counts what it decodes."""

    def __init__(self) -> None:
        self.decoded: list[bytes] = []

    def prepare(self, data: bytes) -> Sized:
        self.decoded.append(data)
        if not data.startswith(b"i"):
            raise RequestError("it is no image")
        return Sized(data.hex(), len(data))


def make_tokenizer(
    folder: Path, make_llama: Callable[..., Path], *, special: bool, end_ids: Sequence[int] = (3,)
) -> ChatTokenizer:
    """A byte-level one with think tags and vision tokens, which not every model calls special."""
    make_llama(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = [AddedToken(text, special=special, normalized=False) for text in VISION]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)
    tokenizer.save(str(folder / "tokenizer.json"))
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["chat_template"] = settings["chat_template"].replace("{{ m['content'] }}", CONTENT)
    file.write_text(json.dumps(settings))
    vocabulary = tokenizer.get_vocab()
    start, end, image = (vocabulary[text] for text in VISION)
    store = ImageStore(Counting(), token_id=image, mark_ids=(start, end))
    return ChatTokenizer(load_tokenizer(folder, eos_token_ids=list(end_ids)), store)


@pytest.fixture(scope="module", params=[True, False], ids=["special", "added"])
def seeing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]
) -> ChatTokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("seeing"), make_llama, special=request.param)


def user(text: str, *images: bytes) -> Message:
    return Message(role="user", text=text, images=tuple(ImagePart(data=data) for data in images))


def written(tokenizer: ChatTokenizer, ids: list[int]) -> str:
    """A prompt with its special tokens, runs of image tokens as their length."""
    text = str(tokenizer._wrapped.decode(ids))
    while "<image>" in text:
        run = text[text.index("<image>") :]
        length = 0
        while run.startswith("<image>"):
            run, length = run.removeprefix("<image>"), length + 1
        text = f"{text[: text.index('<image>')]}[{length}]{run}"
    return text


CONVERSATIONS = [
    (
        [user("What is it?", b"i2345")],
        "<bos><|im_start|>user\n<vs>[5]<ve>What is it?<|im_end|>\n<|im_start|>assistant\n",
    ),
    (
        [user("Compare.", b"i23", b"i")],
        "<bos><|im_start|>user\n<vs>[3]<ve><vs>[1]<ve>Compare.<|im_end|>\n<|im_start|>assistant\n",
    ),
    (
        [user("a", b"i2"), Message(role="assistant", text="b"), user("c"), user("d", b"i2", b"i23")],
        "<bos><|im_start|>user\n<vs>[2]<ve>a<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>user\n<vs>[2]<ve><vs>[3]<ve>d<|im_end|>\n<|im_start|>assistant\n",
    ),
]


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize(("messages", "expected"), CONVERSATIONS, ids=["one", "two", "in several turns"])
def test_images_stand_before_the_text_of_their_turn(
    seeing: ChatTokenizer, messages: list[Message], expected: str, thinking: bool
) -> None:
    ids = seeing.prompt_ids(messages, thinking=thinking)
    assert written(seeing, ids) == expected + ("<think>\n" if thinking else "<think>\n\n</think>\n\n")
    assert seeing.prompt_tokens(messages, thinking=thinking) == len(ids)
    assert seeing.opens_thinking(ids) is thinking


@pytest.mark.parametrize("written_by", ["template", "tokenizer", "both"])
@pytest.mark.parametrize("images_first", [True, False])
def test_bos_stands_once_whoever_writes_it(tmp_path: Path, written_by: str, images_first: bool) -> None:
    """ZAYA1's template leaves it to the tokenizer; people's special tokens cut the prompt into pieces."""
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    if written_by != "template":
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
        tokenizer.save(str(folder / "tokenizer.json"))
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    template = settings["chat_template"].removeprefix("{{ '<bos>' }}")
    template = template.replace("%} w10 {%", "%}{%", 1) if images_first else template
    settings["chat_template"] = template if written_by == "tokenizer" else "{{ '<bos>' }}" + template
    file.write_text(json.dumps(settings))
    store = ImageStore(Counting(), token_id=127, mark_ids=(125, 126))
    prompts = ChatTokenizer(load_tokenizer(folder, eos_token_ids=[106]), store)
    start = [2] if images_first else [2, 10]
    for text in ("w20", "<bos> w20 <image> <ve>"):
        ids = prompts.prompt_ids([user(text, b"i23"), user(text)])
        assert ids[: len(start) + 5] == [*start, 125, 127, 127, 127, 126]
        assert ids.count(2) == 1
        assert ids.count(127) == 3


SPELLED = ["<image>", "<vs><image><ve>", "<<image>image>", "a <image> b </think> <|im_end|>", "<image><image>"]


@pytest.mark.parametrize("spelled", SPELLED)
def test_what_people_write_never_becomes_an_image(seeing: ChatTokenizer, spelled: str) -> None:
    vision = {seeing._wrapped.convert_tokens_to_ids(text) for text in VISION}
    for images in ((), (b"i234",)):
        harmless = seeing.prompt_ids([user("x" * len(spelled), *images)])
        ids = seeing.prompt_ids([user(spelled, *images)])
        assert [i for i in ids if i in vision] == [i for i in harmless if i in vision]
        assert len(ids) == len(harmless)  # one token a byte
    encoded = seeing.encode(spelled)
    assert seeing.decode(encoded) == spelled
    assert not vision & set(encoded)


@given(text=st.text(st.sampled_from("<image>vs/ \n"), max_size=40), images=st.integers(0, 2))
def test_only_the_template_places_images(seeing: ChatTokenizer, text: str, images: int) -> None:
    assert seeing._images is not None
    ids = seeing.prompt_ids([user(text, *[b"i2"] * images)])
    assert ids.count(seeing._images.token_id) == 2 * images


def test_image_tokens_that_a_model_writes_are_not_shown(seeing: ChatTokenizer) -> None:
    """So a tail never holds one, and no later prompt."""
    ids = [*seeing.encode("a"), *(seeing._wrapped.convert_tokens_to_ids(text) for text in VISION), *seeing.encode("b")]
    assert seeing.decode(ids) == "ab"


def test_measuring_decodes_each_image_once(tmp_path: Path, make_llama: Callable[..., Path]) -> None:
    tokenizer = make_tokenizer(tmp_path, make_llama, special=True)
    for _ in range(3):
        tokenizer.prompt_tokens([user("a", b"i2", b"i2", b"i3")])
        tokenizer.prompt_tokens([user("other", b"i2")])
    assert tokenizer._images is not None
    assert tokenizer._images._processor.decoded == [b"i2", b"i3"]  # type: ignore[attr-defined]


def test_patches_are_let_go_of_sizes_are_not() -> None:
    processor = Counting()
    each = Sized("", 1).patches.nbytes
    store = ImageStore(processor, token_id=9, max_bytes=2 * each)
    for data in (b"i1", b"i2", b"i1", b"i3", b"i1", b"i2"):  # the third drives out the second, then that comes again
        assert store.prepare(data).tokens == store.tokens(data) == 2
    assert processor.decoded == [b"i1", b"i2", b"i3", b"i2"]
    assert [store.tokens(data) for data in (b"i1", b"i2", b"i3")] == [2, 2, 2]
    assert len(processor.decoded) == 4


def test_features_are_let_go_of_when_they_are_too_many() -> None:
    computed: list[tuple[int, int, int]] = []

    def tower(patches: mx.array, grids: Sequence[tuple[int, int, int]]) -> mx.array:
        computed.extend(grids)
        return mx.zeros((1, 8))

    cache = FeatureCache(tower, max_bytes=64)  # two of them
    for height in (1, 2, 1, 3, 1, 2):
        assert cache.get(Sized(str(height), 1, (1, height, 2))).shape == (1, 8)
    assert [h for _, h, _ in computed] == [1, 2, 3, 2]


def test_an_unusable_image_is_refused_each_time(seeing: ChatTokenizer) -> None:
    for _ in range(2):
        with pytest.raises(RequestError, match="no image"):
            seeing.prompt_tokens([user("a", b"bad")])


TEMPLATES = [
    ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "a", "places for images: 0, images: 1"),
    ("{% for m in messages %}{{ m['content'] + '!' }}{% endfor %}", "a", "refuses these messages"),
    ("{% for m in messages %}<image><image>{% endfor %}", "a", "places for images: 2, images: 1"),
    ("{% for m in messages %}{{ m['content'][1]['text'] | upper }}{% endfor %}", "<image>", "spells the model's image"),
]


@pytest.mark.parametrize(("template", "text", "words"), TEMPLATES, ids=[words for *_, words in TEMPLATES])
def test_a_template_without_a_place_for_images_says_so(
    seeing: ChatTokenizer, template: str, text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeing._wrapped._tokenizer, "chat_template", template)
    with pytest.raises(RequestError, match=words):
        seeing.prompt_ids([user(text, b"i2")])


def test_images_need_a_chat_template(tmp_path: Path, make_llama: Callable[..., Path]) -> None:
    images = make_tokenizer(tmp_path, make_llama, special=True)._images
    file = tmp_path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["chat_template"]
    file.write_text(json.dumps(settings))
    tokenizer = ChatTokenizer(load_tokenizer(tmp_path), images)
    with pytest.raises(RequestError, match=r"no chat template.* its folder needs chat_template\.jinja"):
        tokenizer.prompt_ids([user("a", b"i2")])
    assert tokenizer.prompt_ids([user("a")])


def test_an_image_token_that_the_tokenizer_does_not_know(
    tmp_path: Path, make_llama: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vocabulary of a model may be larger than that of its tokenizer."""
    known = make_tokenizer(tmp_path, make_llama, special=True)
    template = known._wrapped.chat_template
    monkeypatch.setattr(known._wrapped._tokenizer, "chat_template", f"Tools: None\n{template}")
    unknown = ChatTokenizer(known._wrapped, ImageStore(Counting(), token_id=5000))
    assert known._wrapped.convert_ids_to_tokens(5000) is None
    messages = [user("None is here: <image>", b"i2345")]
    ids = unknown.prompt_ids(messages)
    assert [5000 if i == known._images.token_id else i for i in known.prompt_ids(messages)] == ids
    assert ids.count(5000) == 5


def test_a_model_that_reads_text_only_refuses_images(llama: MLXEngine) -> None:
    with pytest.raises(RequestError, match="reads text only"):
        llama.tokenizer.prompt_tokens([user("a", b"i2")])


def test_the_end_of_a_turn_ends_a_completion_whatever_the_configuration_says(
    tmp_path: Path, make_llama: Callable[..., Path]
) -> None:
    tokenizer = make_tokenizer(tmp_path, make_llama, special=True, end_ids=[0])
    assert tokenizer.end_ids == {0, 3}


def test_a_chat_template_beside_the_processor(tmp_path: Path) -> None:
    """Models that see may have it where tokenizers do not look."""
    for place in ("chat_template.json", "processor_config.json"):
        folder = tmp_path / place
        shutil.copytree(TINY, folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / place).write_text(json.dumps({"chat_template": settings.pop("chat_template")}))
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        engine, original = load_engine(folder), load_engine(TINY)
        messages = [user("w20", png())]
        assert engine.tokenizer.prompt_ids(messages) == original.tokenizer.prompt_ids(messages)
        engine.close()
        original.close()
