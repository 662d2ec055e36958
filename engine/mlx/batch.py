"""The batch that decodes: one forward pass a step for all rows, which join and leave between steps.

The device is kept one step ahead of Python: step t+1 is launched on tokens not yet known here, then the tokens of
step t are read and told to their rows. A row that finishes has thus one draw too many, which nobody reads;
a token that must be forced replaces the draw before it is fed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import mlx.core as mx

from engine.errors import EngineError
from engine.likelihoods import Likelihood
from engine.mlx.model import BatchCache, RowCache, TextModel
from engine.mlx.plain_sampler import Draw
from engine.mlx.row import Row
from engine.mlx.sampler import BatchSampler

_CLEAR_CACHE_STEPS = 512
"""Steps between clearings of the buffers that MLX keeps freed: every growth of the KV cache leaves some of a size that
never comes again."""

_NOT_FINITE = (
    "after {tokens:,} tokens the model's logits are not finite (NaN or infinity), and no token can be drawn from them: "
    "its weights are damaged or overflow in their type; download it again, or convert it to bf16"
)


class DecodeBatch:
    """Rows that decode together; B of them."""

    def __init__(self, model: TextModel) -> None:
        self._model = model
        self.rows: list[Row] = []
        self._caches: Sequence[BatchCache] = []
        self._inputs = _none()  # the next tokens to feed, as they were drawn; not yet read
        self._inputs_are_known: list[bool] = []  # the last token of a row that joins is fed, but is no news to it
        self._sampler = BatchSampler([])
        self._steps = 0

    @property
    def nbytes(self) -> int:
        """Memory of the rows' caches, as it is now."""
        return sum(cache.nbytes for cache in self._caches)

    def join(self, rows: list[Row], prompt_caches: Sequence[RowCache], places: list[int]) -> None:
        """Add rows, new ones or such as have run before. `prompt_caches` (one per layer) hold their `ids` but for the
        last token: places[i] is where in them row i finds its own."""
        joined, self.rows = self.rows, self.rows + rows  # first: if the rest fails, `clear` must find them
        copies = self._model.batch_cache(prompt_caches, places)
        if joined:
            for cache, more in zip(self._caches, copies, strict=True):
                cache.extend(more)
        else:
            self._caches = copies
        self._inputs = _joined(self._inputs, [row.ids[-1] for row in rows])
        self._inputs_are_known += [True] * len(rows)
        self._sampler = BatchSampler([row.request.sampling for row in self.rows])

    def step(self) -> list[Row]:
        """Feed the waiting tokens, draw the next, tell each row its token. Returns the rows that ended.

        A row whose logits are not finite ends with an EngineError; the others do not notice.
        """
        read = self._inputs
        inputs = self._with_forced(read.tokens)
        logits = self._model(inputs[:, None], cache=self._caches)[:, -1, :]  # [B, V]
        draws = [len(row.token_ids) + (not k) for row, k in zip(self.rows, self._inputs_are_known, strict=True)]
        draw = self._sampler(logits, draws, likelihoods=any(row.request.likelihoods for row in self.rows))
        self._inputs = draw._replace(tokens=draw.tokens.astype(mx.uint32))
        launched = [array for array in self._inputs if array is not None]
        mx.async_eval(launched, [cache.state for cache in self._caches])
        tokens: list[int] = inputs.tolist()  # type: ignore[assignment]  # waits for the step before
        drawn: list[bool] = read.finite.tolist()  # type: ignore[assignment]
        news = zip(self.rows, tokens, drawn, self._inputs_are_known, _likelihoods(read), strict=True)
        for row, token, is_drawn, is_known, likelihood in news:
            if not is_drawn:
                row.fail(EngineError(_NOT_FINITE.format(tokens=len(row.token_ids))))
            elif not is_known:
                row.accept(token, likelihood=likelihood)
        self._inputs_are_known = [False] * len(self.rows)
        self._steps += 1
        if self._steps % _CLEAR_CACHE_STEPS == 0:
            mx.clear_cache()
        return self.drop_finished()

    def drop_finished(self) -> list[Row]:
        """Take out the rows with a finish reason, whoever set it, and return them."""
        finished = [row for row in self.rows if row.finish_reason is not None]
        if finished:
            self._keep([i for i, row in enumerate(self.rows) if row.finish_reason is None])
        return finished

    def take_out(self, rows: Collection[Row]) -> None:
        """Let go of rows that have not ended; they may join again."""
        self._keep([i for i, row in enumerate(self.rows) if row not in rows])

    def clear(self) -> list[Row]:
        """Forget all rows and their memory, after a step that failed; returns them."""
        rows = self.rows
        self._keep([])
        return rows

    def _keep(self, kept: list[int]) -> None:
        self.rows = [self.rows[i] for i in kept]
        self._inputs_are_known = [self._inputs_are_known[i] for i in kept]
        if kept:
            self._inputs = _kept(self._inputs, mx.array(kept))
            for cache in self._caches:
                cache.filter(kept)
        else:
            self._inputs = _none()
            self._caches = []
        self._sampler = BatchSampler([row.request.sampling for row in self.rows])

    def _with_forced(self, inputs: mx.array) -> mx.array:
        known = zip(self.rows, self._inputs_are_known, strict=True)
        forced = [row.forced[0] if row.forced and not is_known else -1 for row, is_known in known]
        if all(token < 0 for token in forced):
            return inputs
        override = mx.array(forced)
        return mx.where(override >= 0, override.astype(mx.uint32), inputs)


def _none() -> Draw:
    return Draw(mx.zeros((0,), dtype=mx.uint32), mx.zeros((0,), dtype=mx.bool_))


def _joined(draw: Draw, tokens: list[int]) -> Draw:
    """What was drawn for rows, and tokens of others that nobody drew now."""
    more = len(tokens)
    return Draw(
        mx.concatenate([draw.tokens, mx.array(tokens, dtype=mx.uint32)]),
        mx.concatenate([draw.finite, mx.ones((more,), dtype=mx.bool_)]),
        None if draw.likelihoods is None else mx.concatenate([draw.likelihoods, mx.zeros((more, 2))]),
    )


def _kept(draw: Draw, places: mx.array) -> Draw:
    """Of what was drawn, that for the rows at some places."""
    likelihoods = None if draw.likelihoods is None else draw.likelihoods[places]
    return Draw(draw.tokens[places], draw.finite[places], likelihoods)


def _likelihoods(draw: Draw) -> Iterable[Likelihood | None]:
    """Of each row's draw; None for all if no row has asked."""
    if draw.likelihoods is None:
        return [None] * draw.tokens.size
    pairs: list[tuple[float, float]] = draw.likelihoods.tolist()  # type: ignore[assignment]
    return [Likelihood(log_probability, -expected) for log_probability, expected in pairs]
