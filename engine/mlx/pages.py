"""What the rows that decode together remember, in pages: joining and leaving write a table, and copy nothing of others.

A page holds PAGE tokens of a row in every layer; a layer's pages lie in one array, the pool. It grows by few pages and
shrinks as rows leave, one layer at a time, so that hardly more memory is taken than the rows' pages are. Kernels write
the pool where it lies: MLX would copy it whole while a step is in flight that holds it, and with few nodes a step one
always is. What orders reads after writes is that the kernel that writes also makes what the next one needs, the
queries, and that a step is handed to the device before the next one is made.

Rows that go on from one prompt share its full pages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

import mlx.core as mx

from engine.mlx.kernels.attention import PAGE, Split

Step = TypeVar("Step", bound=Callable[..., Any])

_SPARE = 32
"""A pool grows by one part in so many of its pages at least, or a page for every other row, and shrinks when more is
free: each time it is copied, a layer at a time, which takes as long as two or three steps."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A row that waits to be placed: its place in the caches of a prompt, one for each layer.

    start   where in their buffers its tokens begin.
    tokens  how many these are.
    """

    caches: Sequence[Any]
    place: int
    start: int
    tokens: int

    @property
    def row(self) -> tuple[int, int]:
        """The same for all that go on from the same row of the same caches."""
        return id(self.caches), self.place


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


class PagedRows(ABC):
    """The memory of all layers for the rows that decode together; implements `engine.mlx.model.BatchCache`, alone for
    all layers. A family says what a pool is, how a prompt gets into it, and what else its rows remember.

    Rows beyond the last up to `places` are empty: they make the shapes of a step stay the same as rows come and go.
    """

    def __init__(self, layers: int, prompts: Sequence[Prompt]) -> None:
        self._layers = layers
        self._prompts = list(prompts)
        self._pages = Pages()
        self._rows: list[list[int]] = []  # the pages of each row
        self.lengths: list[int] = []
        """Tokens of each row that was placed."""
        self.pools: list[mx.array] = []
        """Of each layer, as `engine.mlx.kernels.attention` has them, or `engine.mlx.kernels.eight_bits`."""
        self.tails: list[mx.array] = []
        """What else each layer remembers, [places, ...]; none if that is nothing."""
        self._table: mx.array | None = None
        self._lengths: mx.array | None = None

    # ---- what a family says -------------------------------------------------------------------------------------

    @abstractmethod
    def _empty_pool(self, pages: int) -> mx.array:
        """So many pages of a layer."""

    @abstractmethod
    def _stored(self, prompt: Prompt, tokens: tuple[int, int], pages: Sequence[int]) -> list[mx.array]:
        """Copies of a half-open range of a prompt's tokens into its pages, in all pools; to be evaluated."""

    def _tails_of(self, prompts: Sequence[Prompt]) -> list[mx.array]:
        """What of some prompts goes into `tails`, [rows, ...] of each layer."""
        return []

    # ---- mlx-lm's words for a batch that changes ----------------------------------------------------------------

    def extend(self, other: Self) -> None:
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
        self._shuffle(kept)

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
        twins: dict[tuple[int, int], int] = {}  # a prompt's row -> which of ours has it in its pages
        self._make_room(prompts)
        before, copies = len(self._rows), list[mx.array]()
        for prompt in prompts:
            first = self._seat(prompt, twins.get(prompt.row)) * PAGE
            twins.setdefault(prompt.row, len(self._rows) - 1)
            if first < prompt.tokens:
                copies += self._stored(prompt, (first, prompt.tokens), self._rows[-1][first // PAGE :])
        tails = self._tails_of(prompts)
        self.tails = [
            mx.concatenate([ours[:before], more]) if before else more
            for ours, more in zip(self.tails or tails, tails, strict=True)
        ]
        self._shuffle(list(range(len(self._rows))))
        mx.async_eval(copies, self.state)

    @property
    def places(self) -> int:
        """Rows of a step, the empty ones included."""
        return places_for(len(self._rows))

    def advance(self) -> tuple[mx.array, mx.array]:
        """Make room for the next token of each row: `table` [places, M] and `lengths` [places] for the kernels.

        The caller says after the step what the lengths are then: `advanced`.
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

    def advanced(self, lengths: mx.array) -> None:
        """A token more in each row."""
        self._lengths = lengths
        self.lengths = [length + 1 for length in self.lengths]

    # ---- inside -------------------------------------------------------------------------------------------------

    def _shuffle(self, order: list[int]) -> None:
        """Take the tails of these places, whatever the empty ones have, and forget what was made of the rows before."""
        places = mx.array(order + [0] * (self.places - len(order)), dtype=mx.int32)
        self.tails = [tail[places] for tail in self.tails]
        self._table = self._lengths = None

    def _make_room(self, prompts: Sequence[Prompt]) -> None:
        """Grow once, and before any prompt is copied."""
        lengths = {prompt.row: prompt.tokens for prompt in prompts}
        needed = sum(-(-tokens // PAGE) for tokens in lengths.values())
        needed += len(prompts) - len(lengths)  # of a prompt's pages its other rows need the last, at most
        if needed > len(self._pages.free):
            self._grow(needed)

    def _seat(self, prompt: Prompt, twin: int | None) -> int:
        """Pages for a row; `twin` has the same prompt in its own. Returns how many of them they share."""
        pages = [] if twin is None else self._rows[twin][: prompt.tokens // PAGE]  # what comes after is written to
        for page in pages:
            self._pages.users[page] += 1
        self._rows.append(pages + [self._take() for _ in range(len(pages), -(-prompt.tokens // PAGE))])
        self.lengths.append(prompt.tokens)
        return len(pages)

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
            self.pools = [self._empty_pool(more) for _ in range(self._layers)]
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


def places_for(rows: int) -> int:
    """Rows of a step for so many that decode: few different numbers, since each has to be traced anew."""
    if rows <= 4:
        return rows
    step = 4 if rows <= 32 else 8 if rows <= 64 else 32
    return -(-rows // step) * step


class Steps(Generic[Step]):
    """Steps of a decoder, compiled: one for each shape that rows have and each way to cut them into chunks.

    make      a step for chunks.
    kv_heads  of the model.
    """

    def __init__(self, make: Callable[[Split], Step], kv_heads: int) -> None:
        self._make = make
        self._kv_heads = kv_heads
        self._made: dict[tuple[int, int, Split], Any] = {}
        self._split, self._split_for = Split.of(1, kv_heads, 1), 0

    def begin(self, tokens: mx.array, rows: PagedRows) -> tuple[Step, mx.array, mx.array, mx.array]:
        """Make room for another token of each row. Returns a step, and what it is to be given: tokens [B], one for each
        row, as [places], with `table` and `lengths` (see `PagedRows.advance`)."""
        rows.place()
        table, lengths = rows.advance()
        empty = rows.places - tokens.shape[0]
        if empty:
            tokens = mx.concatenate([tokens, mx.zeros((empty,), tokens.dtype)])
        return self._of(rows, table.shape[1]), tokens, table, lengths

    def _of(self, rows: PagedRows, width: int) -> Step:
        """The step for rows whose table has so many columns. They are cut otherwise than before only if they must be,
        or rows have left."""
        longest = max(rows.lengths) + 1
        if longest > self._split.reach or rows.places != self._split_for or 2 * longest < self._split.reach:
            self._split, self._split_for = Split.of(rows.places, self._kv_heads, longest), rows.places
        key = (rows.places, width, self._split)
        if key not in self._made:
            self._made[key] = mx.compile(self._make(self._split))
        step: Step = self._made[key]
        return step
