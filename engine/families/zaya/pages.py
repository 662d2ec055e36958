"""What the rows that decode together remember, in pages: joining and leaving write a table, and copy nothing of others.

A page holds PAGE tokens of a row in every layer; a layer's pages lie in one array, the pool. It grows by few pages and
shrinks as rows leave, one layer at a time, so that hardly more memory is taken than the rows' pages are. Kernels write
the pool where it lies: MLX would copy it whole while a step is in flight that holds it, and with few nodes a step one
always is. What orders reads after writes is that each step's tails are made from those of the step before, by the
kernel that writes.

Rows that go on from one prompt share its full pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from engine.families.zaya.cache import TAIL_TOKENS, CCACache
from engine.families.zaya.config import ModelArgs
from engine.mlx.kernels import eight_bits
from engine.mlx.kernels.attention import PAGE, store

_SPARE = 32
"""A pool grows by one part in so many of its pages at least, or a page for every other row, and shrinks when more is
free: each time it is copied, a layer at a time, which takes as long as two or three steps."""


@dataclass(slots=True)
class _Prompt:
    """A row that waits to be placed: its place in the caches of a prompt."""

    caches: Sequence[CCACache]
    place: int

    @property
    def tokens(self) -> int:
        return self.caches[0].size() - self.caches[0].left_padding[self.place]


@dataclass(slots=True)
class Pages:
    """Which pages are in use, by how many rows."""

    users: list[int] = field(default_factory=list)
    free: list[int] = field(default_factory=list)

    def take(self) -> int | None:
        """A free page; None: there is none."""
        if not self.free:
            return None
        page = self.free.pop()
        self.users[page] = 1
        return page

    def drop(self, page: int) -> None:
        """One user less."""
        self.users[page] -= 1
        if not self.users[page]:
            self.free.append(page)

    @property
    def used(self) -> int:
        """Pages with users."""
        return len(self.users) - len(self.free)

    def grow(self, pages: int) -> None:
        """So many more."""
        first = len(self.users)
        self.users += [0] * pages
        self.free += range(first + pages - 1, first - 1, -1)  # the lowest are taken first

    def gather(self) -> list[int]:
        """Have the pages in use come first and be all there are: which page each of them was."""
        order = [page for page, users in enumerate(self.users) if users]
        self.users, self.free = [self.users[page] for page in order], []
        return order


class PagedRows:
    """The memory of all layers for the rows that decode together; implements `engine.mlx.model.BatchCache`, alone for
    all layers.

    Rows beyond the last up to `places` are empty: they make the shapes of a step stay the same as rows come and go.
    """

    def __init__(self, args: ModelArgs, dtype: mx.Dtype, *, kv_bits: int | None = None) -> None:
        self._args, self._dtype, self._kv_bits = args, dtype, kv_bits
        self._prompts: list[_Prompt] = []
        self._pages = Pages()
        self._rows: list[list[int]] = []  # the pages of each row
        self.lengths: list[int] = []
        """Tokens of each row that was placed."""
        self.pools: list[mx.array] = []
        """Of each layer, as `engine.mlx.kernels.attention` has them, or `engine.mlx.kernels.eight_bits`."""
        self.tails: list[mx.array] = []
        """[places, 2, qk_width + value_width] of each layer."""
        self._table: mx.array | None = None
        self._lengths: mx.array | None = None

    @classmethod
    def of(
        cls,
        args: ModelArgs,
        dtype: mx.Dtype,
        caches: Sequence[CCACache],
        places: Sequence[int],
        *,
        kv_bits: int | None = None,
    ) -> PagedRows:
        """Rows that go on from those at some places of a prompt's caches, which have the same `kv_bits`."""
        rows = cls(args, dtype, kv_bits=kv_bits)
        rows._prompts = [_Prompt(caches, place) for place in places]
        return rows

    # ---- mlx-lm's words for a batch that changes ----------------------------------------------------------------

    def extend(self, other: PagedRows) -> None:
        """Append rows that were not placed yet."""
        assert not other._rows, "rows in pages of their own cannot move"
        self._prompts += other._prompts

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep the rows at these places, in this order."""
        self.place()
        kept = list(batch_indices)
        for index in set(range(len(self._rows))) - set(kept):
            for page in self._rows[index]:
                self._pages.drop(page)
        self._rows = [self._rows[i] for i in kept]
        self.lengths = [self.lengths[i] for i in kept]
        self._arrange(mx.array(kept + [0] * (places_for(len(kept)) - len(kept)), dtype=mx.int32))

    @property
    def state(self) -> list[mx.array]:
        return [*self.tails, *([self._lengths] if self._lengths is not None else [])]

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in (*self.pools, *self.tails))

    # ---- a step -------------------------------------------------------------------------------------------------

    def place(self) -> None:
        """Give the rows that came their pages, and copy their prompts into them."""
        if not self._prompts:
            return
        prompts, self._prompts = self._prompts, []
        shared: dict[tuple[int, int], int] = {}  # a prompt's row -> which of ours has it in its pages
        self._make_room(prompts)
        shares = []
        for prompt in prompts:
            key = (id(prompt.caches), prompt.place)
            shares.append(self._seat(prompt, shared.get(key)))
            shared.setdefault(key, len(self._rows) - 1)
        rows = range(len(self._rows) - len(prompts), len(self._rows))
        done = [
            copy
            for row, prompt, share in zip(rows, prompts, shares, strict=True)
            for copy in self._stored(row, prompt, share)
        ]
        tails = [self._tails_of(prompts, layer) for layer in range(self._args.num_layers)]
        before = len(self._rows) - len(prompts)
        self.tails = [
            mx.concatenate([ours[:before], more]) if before else more
            for ours, more in zip(self.tails or tails, tails, strict=True)
        ]
        self._arrange(mx.array([*range(len(self._rows)), *[0] * (self.places - len(self._rows))], dtype=mx.int32))
        mx.async_eval(done, self.tails)

    @property
    def places(self) -> int:
        """Rows of a step, the empty ones included."""
        return places_for(len(self._rows))

    def advance(self) -> tuple[mx.array, mx.array]:
        """Make room for the next token of each row: `table` [places, M] and `lengths` [places] for the kernels.

        The caller gives back the lengths after the step, and the tails.
        """
        needed = [row for row, length in enumerate(self.lengths) if length // PAGE == len(self._rows[row])]
        self._fit(len(needed))
        for row in needed:
            self._rows[row].append(self._take())
        if self._table is None or needed:
            width = -(-max(map(len, self._rows)) // 8) * 8
            empty = [[0] * width] * (self.places - len(self._rows))
            self._table = mx.array([pages + [0] * (width - len(pages)) for pages in self._rows] + empty, dtype=mx.int32)
        if self._lengths is None:
            self._lengths = mx.array(self.lengths + [-1] * (self.places - len(self._rows)), dtype=mx.int32)
        return self._table, self._lengths

    def advanced(self, tails: list[mx.array], lengths: mx.array) -> None:
        """A token more in each row."""
        self.tails, self._lengths = tails, lengths
        self.lengths = [length + 1 for length in self.lengths]

    # ---- inside -------------------------------------------------------------------------------------------------

    def _arrange(self, order: mx.array) -> None:
        """Take the tails of these places, [places], and forget what was made of the rows before."""
        self.tails = [tail[order] for tail in self.tails]
        self._table = self._lengths = None

    def _make_room(self, prompts: Sequence[_Prompt]) -> None:
        """Grow once, and before any prompt is copied."""
        lengths = {(id(prompt.caches), prompt.place): prompt.tokens for prompt in prompts}
        needed = sum(-(-tokens // PAGE) for tokens in lengths.values())
        needed += len(prompts) - len(lengths)  # of a prompt's pages its other rows need the last, at most
        if needed > len(self._pages.free):
            self._grow(needed)

    def _seat(self, prompt: _Prompt, twin: int | None) -> int:
        """Pages for a row; `twin` has the same prompt in its own. Returns how many of them they share."""
        tokens = prompt.tokens
        pages = [] if twin is None else self._rows[twin][: tokens // PAGE]  # what comes after is written to
        for page in pages:
            self._pages.users[page] += 1
        self._rows.append(pages + [self._take() for _ in range(len(pages), -(-tokens // PAGE))])
        self.lengths.append(tokens)
        return len(pages)

    def _stored(self, row: int, prompt: _Prompt, share: int) -> list[mx.array]:
        """Copies of a prompt but for its first pages; to be evaluated."""
        first, end = share * PAGE, self.lengths[row]
        start = prompt.caches[0].left_padding[prompt.place]
        if first == end:
            return []
        copy: Callable[..., mx.array] = store if self._kv_bits is None else eight_bits.store
        return [
            copy(*layer.buffers, prompt.place, start, (first, end), self._rows[row][share:], pool)
            for layer, pool in zip(prompt.caches, self.pools, strict=True)
            if layer.buffers
        ]

    def _tails_of(self, prompts: Sequence[_Prompt], layer: int) -> mx.array:
        """The tails that some rows bring, [rows, 2, qk_width + value_width]."""
        width = self._args.qk_width + self._args.value_width
        caches = [(prompt.caches[layer], prompt.place) for prompt in prompts]
        return mx.stack(
            [
                mx.zeros((TAIL_TOKENS, width), self._dtype) if cache.tail is None else cache.tail[place]
                for cache, place in caches
            ]
        )

    def _take(self) -> int:
        page = self._pages.take()
        assert page is not None, "there was room for it"
        return page

    def _fit(self, needed: int) -> None:
        """See to so many free pages, and to not many more."""
        pages = self._pages
        if needed > len(pages.free):
            self._grow(needed)
        elif not needed and len(pages.free) > self._spare:
            self._shrink()

    def _grow(self, needed: int) -> None:
        """Have so many free pages, and some more."""
        pages = self._pages
        more = max(needed - len(pages.free), self._spare)
        mx.synchronize()  # a step in flight writes where the pool was
        new = self._empty_pool(more)
        if not self.pools:
            self.pools = [self._empty_pool(more) for _ in range(self._args.num_layers)]
            mx.eval(self.pools)
        else:
            for layer in range(len(self.pools)):
                self.pools[layer] = mx.concatenate([self.pools[layer], new])
                mx.eval(self.pools[layer])
        pages.grow(more)

    @property
    def _spare(self) -> int:
        return max(self._pages.used // _SPARE, len(self._rows) // 2)

    def _shrink(self) -> None:
        """Let go of free pages: those in use move together."""
        mx.synchronize()
        order = self._pages.gather()
        taken = mx.array(order, dtype=mx.int32)
        for layer in range(len(self.pools)):
            self.pools[layer] = self.pools[layer][taken]
            mx.eval(self.pools[layer])
        moved = {page: place for place, page in enumerate(order)}
        self._rows = [[moved[page] for page in pages] for pages in self._rows]
        self._table = None

    def _empty_pool(self, pages: int) -> mx.array:
        args = self._args
        if self._kv_bits is not None:
            return eight_bits.empty_pool(pages, args.num_kv_heads, args.head_dim)
        return mx.zeros((pages, 2, args.num_kv_heads, PAGE, args.head_dim), self._dtype)


def places_for(rows: int) -> int:
    """Rows of a step for so many that decode: few different numbers, since each has to be traced anew."""
    if rows <= 4:
        return rows
    step = 4 if rows <= 32 else 8 if rows <= 64 else 32
    return -(-rows // step) * step
