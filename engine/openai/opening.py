"""From a model's name and the URLs of its servers to an engine that has asked what they can do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.api import GenerationRequest, Message, ModelInfo, Tool
from engine.errors import EngineError, ModelError
from engine.openai.asking import Asker
from engine.openai.bodies import Capabilities, declared, turns
from engine.openai.connection import settings_of
from engine.openai.engine import OpenAIEngine
from engine.openai.estimated import EstimatedTokenizer
from engine.openai.probe import QUESTION, Probe, find_model
from engine.openai.remote import Remote
from engine.openai.tokens import CountPrompt, RemoteTokenizer, ServerTokenizer
from engine.openai.wire import read_tokens
from engine.paths import path_named

if TYPE_CHECKING:
    from engine.mlx.tokenizer import ChatTokenizer

API_KEY_ENV = "OPENAI_API_KEY"
_CHECKED = "Hello wörld\n\n 12 <x>"
"""A text that a server's tokenizer must give back as it was."""
_BEGUN = "12 + 34"
"""What a server is asked to go on with: several tokens, as mlx_lm.server 0.32 breaks down on a prompt whose
continuation by one token it has seen."""
_TURN_TOKENS = 4
"""What a chat template puts around a turn, where nobody says."""
_ASKED = (Message(role="user", text=QUESTION),)


def open_openai(
    model: str,
    *,
    base_url: str | Sequence[str] | None = None,
    tokenizer: str | Path | None = None,
    api_key_env: str = API_KEY_ENV,
    max_rows: int = 256,
    timeout_s: float = 600.0,
    max_retries: int = 8,
    backoff_s: float = 0.5,
    name: str | None = None,
    notes: Sequence[str] = (),
    transport: Any = None,
) -> OpenAIEngine:
    """An engine for a model behind one or more servers; blocks until it has asked what they can do.

    model        what the servers call it.
    base_url     where their API is, `http://host:port/v1` say; several in a sequence, or parted by spaces or commas.
                 None: the environment variable OPENAI_BASE_URL.
    tokenizer    a folder with the model's tokenizer, or a model that is on this machine: tokens are then counted
                 exactly, whatever the server tells. None: the server's tokenizer if it has one, else estimates.
    api_key_env  the environment variable that holds the key; without one none is sent.
    max_rows     requests that go on at once, over all servers.
    timeout_s    a server that says nothing for so long is taken to have broken off.
    max_retries  how often a request is tried again, in a row and without a token in between, before it fails.
    backoff_s    how long it waits before that at first.
    name, notes  as of `engine.api.ModelInfo`.
    transport    an httpx2 transport that takes the place of the network.

    Raises RequestError for settings that make no sense, ModelError for a server that cannot be reached, is none,
    refuses the key or does not have the model, and for a tokenizer that cannot be loaded.
    """
    settings = settings_of(
        base_url,
        api_key_env=api_key_env,
        max_rows=max_rows,
        timeout_s=timeout_s,
        max_retries=max_retries,
        backoff_s=backoff_s,
        transport=transport,
    )
    chat = None if tokenizer is None else _local(tokenizer)
    asker = Asker(settings)
    try:
        entry = find_model(asker, model)
        remote = _Opening(asker, model, chat, entry).remote(name or model, notes, tokenizer)
    except BaseException:
        asker.close()
        raise
    return OpenAIEngine(remote, asker)


class _Opening:
    """What is known of a model while its engine is being opened."""

    def __init__(self, asker: Asker, model: str, chat: ChatTokenizer | None, entry: Mapping[str, Any]) -> None:
        self.asker, self.model, self.chat, self.entry = asker, model, chat, entry
        self.probe = Probe(asker, model)
        self.probe.first()
        self.without_bos = False
        self.rendered = [] if chat is None else chat.prompt_ids(_ASKED)
        if chat is not None and self.rendered and chat.spell(self.rendered[:1]) == "":
            # Only ours puts it there: the server has just what its chat template writes.
            self.without_bos = self.probe.shown.prompt_tokens == len(self.rendered) - 1
            self.rendered = self.rendered[self.without_bos :]
        self.thinks = self._thinks()
        self.tokenizer = self._tokenizer()

    def remote(self, name: str, notes: Sequence[str], tokenizer: str | Path | None) -> Remote:
        """All that the engine's requests share."""
        can = self._can()
        info = ModelInfo(
            name=name,
            context_tokens=self._context(),
            fingerprint=self._fingerprint(),
            thinks=self.thinks,
            notes=(*notes, *self._notes(can)),
            max_rows=self.asker.settings.max_rows,
            images=can.images,
            tools=can.tools,
            conclude=can.continues != "none" or (can.thinking_budget and self.thinks),
            seeds=can.seeds,
            exact_tokens=self.tokenizer.kind != "estimated",
            logprobs=can.logprobs,
            details={
                "source": f"openai:{self.model}",
                "architecture": self._architecture(tokenizer),
                "base_url": " ".join(self.asker.settings.base_urls),
                "api_key_env": self.asker.settings.api_key_env,
                "tokenizer": self.tokenizer.kind,
                "tokenizer_source": None if tokenizer is None else _absolute(tokenizer),
                **can.facts,
            },
        )
        return Remote(
            name=self.model,
            settings=self.asker.settings,
            can=can,
            tokenizer=self.tokenizer,
            info=info,
            render=self._render if self._agrees else None,
            spell=self._spell if can.continues == "text" else None,
        )

    # ---- tokens

    def _thinks(self) -> bool:
        """It was seen to reason, or its prompts end in an opened think tag."""
        if self.probe.can.reasoning != "none":
            return True
        if self.chat is not None:
            return self.chat.opens_thinking(self.rendered)
        prompt = self.probe.shown.prompt_ids
        if prompt is None:
            return False
        try:
            tags = ServerTokenizer(self.asker, self.model, thinks=True)
        except EngineError:
            return False
        end = list(prompt[-8:])
        return _ends_in(end, tags.think_open) or _ends_in(end[:-1], tags.think_open)

    @property
    def _agrees(self) -> bool:
        """The prompt that a tokenizer here renders is as long as the server says that it is."""
        return self.chat is not None and self.probe.shown.prompt_tokens == len(self.rendered)

    def _tokenizer(self) -> RemoteTokenizer:
        if self.chat is not None:
            return RemoteTokenizer("local", self.chat, lambda *prompt: len(self._ids(*prompt)))
        try:
            server = ServerTokenizer(self.asker, self.model, thinks=self.thinks)
            if server.decode_exactly(server.encode(_CHECKED)) == _CHECKED:
                return RemoteTokenizer("server", server, self._count(server))
        except EngineError:
            pass
        estimated = EstimatedTokenizer(thinks=self.thinks)
        return RemoteTokenizer("estimated", estimated, _by_parts(estimated.encode, self._overhead(estimated.encode)))

    def _count(self, server: ServerTokenizer) -> CountPrompt:
        """How a server's prompts are counted: it renders them itself if what it says agrees with its own usage."""

        def rendered(messages: Sequence[Message], thinking: bool, tools: Sequence[Tool]) -> int:
            body = {"model": self.model, "messages": turns(messages), "add_generation_prompt": True, **declared(tools)}
            if "chat_template_kwargs" in self.probe.can.fields:
                body["chat_template_kwargs"] = {"enable_thinking": thinking}
            return len(self.asker.post_beside("/tokenize", body, read_tokens))

        try:
            if rendered(_ASKED, True, ()) == self.probe.shown.prompt_tokens:
                return rendered
        except EngineError:
            pass
        return _by_parts(server.encode, self._overhead(server.encode))

    def _overhead(self, encode: Callable[[str], list[int]]) -> int:
        """What the chat template puts around one turn, by what the server counted."""
        counted = self.probe.shown.prompt_tokens
        return _TURN_TOKENS if counted is None else max(0, counted - len(encode(QUESTION)))

    def _render(self, request: GenerationRequest) -> list[int]:
        return self._ids(request.messages, request.thinking, request.tools)

    def _ids(self, messages: Sequence[Message], thinking: bool, tools: Sequence[Tool]) -> list[int]:
        """A prompt as a tokenizer here renders it and the server has it."""
        assert self.chat is not None
        return self.chat.prompt_ids(messages, thinking=thinking, tools=tools)[self.without_bos :]

    def _spell(self, token_ids: list[int]) -> str:
        assert self.chat is not None
        return self.chat.spell(token_ids)

    # ---- capabilities

    def _can(self) -> Capabilities:
        probe, kind = self.probe, self.tokenizer.kind
        if kind == "estimated":  # ids that nobody can read are of no use
            probe.can = replace(probe.can, token_ids=False)
        if self.thinks and probe.can.reasoning == "none":
            probe.can = replace(probe.can, reasoning="tags")
        return replace(
            probe.can,
            server=self._server(),
            continues=self._continues(),
            thinking_budget=self.thinks and probe.keeps_budget(),
            seeds=probe.keeps_seeds(),
            images=probe.reads_images(),
            # A template here that leaves tools out would count prompts that are longer there.
            tools=(self.chat is None or self.chat.takes_tools) and probe.takes_tools(),
            n=probe.gives_several(),
        )

    def _continues(self) -> Any:
        prompt = self.probe.shown.prompt_ids or (self.rendered if self._agrees else None)
        if self.tokenizer.kind != "estimated" and prompt is not None:
            ids = [*prompt, *self.tokenizer.encode(_BEGUN)]
            if self.probe.continues_after(ids, len(ids)):
                return "ids"
            if self._agrees and self.probe.continues_after(self._spell(ids), len(ids)):
                return "text"
        return "turn" if self.probe.continues_turns() else "none"

    def _server(self) -> str:
        owner = str(self.entry.get("owned_by") or "").lower()
        return owner if owner in ("vllm", "sglang", "llamacpp", "openai") else owner or "unknown"

    def _context(self) -> int | None:
        """vLLM and SGLang say how long a context may be, llama.cpp for how long a one the model was trained."""
        meta = self.entry.get("meta")
        found = self.entry.get("max_model_len") or self.entry.get("context_length")
        found = found or (meta.get("n_ctx") or meta.get("n_ctx_train") if isinstance(meta, dict) else None)
        return found if type(found) is int and found > 0 else None

    def _architecture(self, tokenizer: str | Path | None) -> str | None:
        """As the tokenizer's folder says, or for the family that was trained to aggregate, its name."""
        if tokenizer is not None:
            from engine.loader import model_type_of

            found = model_type_of(tokenizer)
            if found:
                return found
        return "zaya" if "zaya" in self.model.lower() else None

    def _fingerprint(self) -> str:
        """Of what a server says about a model: its name, its root, and whose tokens are counted."""
        said = [self.model, self.entry.get("root"), self.tokenizer.kind]
        return hashlib.sha256(repr(said).encode()).hexdigest()[:16]

    def _notes(self, can: Capabilities) -> list[str]:
        notes = []
        if self.tokenizer.kind == "estimated":
            notes.append(
                "tokens are estimated, so that beta, tau and all counts are approximate: `tokenizer` names a folder "
                "with the model's own"
            )
        if not can.streaming:
            notes.append(
                "the server does not stream: answers come whole, and what is over a budget is generated in vain"
            )
        if can.continues == "none":
            what = "an answer cannot be asked for at beta" if not (can.thinking_budget and self.thinks) else ""
            notes.append(
                "the server cannot go on with what is written: "
                + "; ".join(filter(None, [what, "a candidate whose connection breaks starts again"]))
            )
        cuts = [name for name in ("top_k", "min_p") if name not in can.fields]
        if cuts:
            notes.append(f"the server takes no {' and no '.join(cuts)}: they are left out")
        if not can.seeds:
            notes.append("the server does not keep seeds: a run cannot be repeated")
        return notes


def _local(tokenizer: str | Path) -> ChatTokenizer:
    from engine.loader import load_tokenizer

    return load_tokenizer(tokenizer)


def _absolute(tokenizer: str | Path) -> str:
    path = path_named(tokenizer, ModelError)
    return str(path.resolve()) if path.exists() else str(tokenizer)


def _by_parts(encode: Callable[[str], list[int]], overhead: int) -> CountPrompt:
    """Counts a prompt by its texts, and by what a chat template puts around each."""

    def count(messages: Sequence[Message], _: bool, tools: Sequence[Tool]) -> int:
        texts = [message.text for message in messages]
        texts += [call.model_dump_json() for message in messages for call in message.calls]
        declared_here = [tool.model_dump_json() for tool in tools]
        return sum(len(encode(text)) + overhead for text in texts) + sum(len(encode(text)) for text in declared_here)

    return count


def _ends_in(ids: Sequence[int], pattern: Sequence[int]) -> bool:
    return bool(pattern) and tuple(ids[-len(pattern) :]) == tuple(pattern)
