"""DrawingShards: how a batch is drawn over the shards."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay.adapters.ray_shards.joining import (
    Part,
    check_out,
    distinct_counts,
    fill,
    joined_batch,
    stratified_counts,
)
from diskreplay.adapters.ray_shards.messages import ShardAwayError
from diskreplay.adapters.ray_shards.packing import Form, can_pack
from diskreplay.adapters.ray_shards.reading import ReadingShards
from diskreplay.adapters.ray_shards.shard_calls import Call
from diskreplay.adapters.ray_shards.whole_sequences import WholeSequences

_NOTE_SECONDS = 0.5  # as commits come each second


class StartedDraw(NamedTuple):
    """A draw whose answers are on their way."""

    method: str
    n: int
    options: dict[str, Any]
    number: int
    turn: int  # how often it was asked before: each time with another random stream
    calls: dict[int, Call]


class Streams:
    """The random streams of the draws of a process, numbered by draw and purpose."""

    def __init__(self, seed: int, process: int) -> None:
        self._bits = np.random.Philox(key=seed)
        self._process = process
        self._state = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def of(self, draw: int, purpose: int) -> np.random.Generator:
        """Return a stream, until the next call: to set a counter takes a tenth of a new Philox."""
        counter = np.array([0, self._process, purpose, draw], np.uint64)
        self._state["state"]["counter"] = counter
        self._bits.state = self._state
        return self._generator


class DrawingShards(ReadingShards):
    """An open sharded replay: the methods that draw."""

    _seed: int
    _streams: Streams
    _ahead: int
    _noted: float
    _given_back: deque[StartedDraw]
    _forms: dict[tuple[Any, ...], Form]

    def _changed(self) -> None:
        """Drop what was drawn ahead and given back: it is of the state before."""
        self._ahead -= len(self._given_back)
        self._given_back.clear()

    def _shares(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the masses and the sizes of the shards, 0 of those that are away."""
        self._calls.look_for_the_away()
        masses, sizes = np.zeros(self._n), np.zeros(self._n, np.int64)
        for number in self._calls.present:
            facts = self._calls.facts[number]
            masses[number], sizes[number] = facts.mass, facts.size
        return masses, sizes

    def _begin(self, method: str, name: str, n: Any, options: dict[str, Any]) -> StartedDraw:
        """Begin a draw of n, or take one that was drawn ahead and given back."""
        self._check_open()
        if type(n) is not int or n < 1:
            getattr(self._pushed.checker, "draw" if name == "n" else "sample")(n)
            n = int(n)
        self._pushed.send_if_due()
        if self._given_back and self._given_back[0][:3] == (method, n, options):
            return self._given_back.popleft()
        self._changed()
        draw = self._ask(StartedDraw(method, n, options, self._returned + self._ahead, -1, {}))
        self._ahead += 1
        return draw

    def _ask(self, draw: StartedDraw, n: int | None = None) -> StartedDraw:
        """Ask the shards, for so many or as before, from the next random stream of the draw."""
        n = draw.n if n is None else n
        masses, sizes = self._shares()
        if n > sizes.sum() and self._calls.present:
            self._calls.load_facts(self._calls.to_all("facts"))
            masses, sizes = self._shares()
        if not self._calls.present:
            raise ShardAwayError(f"all shards of {self.path} are away: call again")
        self._refuse_too_few(n, int(sizes.sum()))
        generator = self._streams.of(draw.number, 2 * draw.turn + 2)
        if self._kind == "uniform":
            counts = distinct_counts(n, sizes, generator)
        else:
            counts = stratified_counts(n, masses, generator)
        # Each argument costs time, and the frame is of use where a commit saves it.
        named: dict[str, Any] = {"options": draw.options} if draw.options else {}
        if (draw.method, *draw.options.items()) not in self._forms:
            named["typed"] = True
        if self._is_owner and time.monotonic() - self._noted > _NOTE_SECONDS:
            self._noted = time.monotonic()
            named["frame"] = self._frame
        calls = {
            shard: self._calls.ask(shard, "draws", draw.method, count, **named)
            for shard, count in enumerate(counts.tolist())
            if count
        }
        return draw._replace(n=n, turn=draw.turn + 1, calls=calls)

    def _refuse_too_few(self, n: int, size: int) -> None:
        if n > size:
            away = f" in the shards that are there ({len(self._calls.away)} are away)"
            raise diskreplay.SampleError(
                f"cannot draw {n} transition{'s' * (n != 1)}: {self.path} holds {size}"
                f"{away if self._calls.away else ''}; wait until is_ready({n})"
            )

    def _parts(self, draw: StartedDraw) -> tuple[list[Part], int]:
        """Return the parts of a draw, and the size of the whole; draw again if a shard is lost."""
        while True:
            answers = self._calls.answers(draw.calls)
            self._calls.load_facts({shard: facts for shard, (_, facts) in answers.items()})
            if len(answers) == len(draw.calls) and all(found for found, _ in answers.values()):
                break
            draw = self._ask(draw)
        masses, sizes = self._shares()
        parts = []
        for shard, (batches, _) in answers.items():
            facts = self._calls.facts[shard]
            masses[shard], sizes[shard] = facts.mass, facts.size
            parts += [Part(shard, batch, 0.0, facts.size) for batch in batches]
        shares = (masses / masses.sum()).tolist()
        return [
            Part(part.shard, self._unpacked(draw, part.batch), shares[part.shard], part.size)
            for part in parts
        ], int(sizes.sum())

    def _unpacked(self, draw: StartedDraw, found: Any) -> Any:
        """Return a batch of a shard, which is packed once its form is known."""
        form = (draw.method, *draw.options.items())
        if isinstance(found, list):
            return self._forms[form].unpack(found[1], found[0])
        if draw.method != "draw" and can_pack(found, draw.options):
            self._forms[form] = Form(found)
        return found

    def _finish(self, draw: StartedDraw, beta: float | None = None) -> Any:
        """Return the batch of a draw, and count it."""
        self._check_open()
        parts, size = self._parts(draw)
        return self._joined(parts, size, beta)

    def _joined(self, parts: list[Part], size: int, beta: float | None) -> Any:
        batch = joined_batch(parts, self._n, size, self._beta_of(beta))
        self._count()
        return batch

    def _count(self) -> None:
        self._returned += 1
        self._ahead -= 1

    def _beta_of(self, beta: float | None) -> float | None:
        return None

    def _sampled(self, n: Any, out: Any, beta: float | None, options: dict[str, Any]) -> Any:
        self._check_open()
        if out is not None and type(n) is int:
            check_out(out, n)
        batch = self._finish(self._begin("sample", "batch_size", n, unusual(options)), beta)
        return batch if out is None else fill(out, batch)

    def draw(self, n: int) -> diskreplay.Draw:
        """Draw as `sample` does, and return write ids and probabilities."""
        parts, _ = self._parts(self._begin("draw", "n", n, {}))
        self._count()
        ids = [part.batch.indices * self._n + part.shard for part in parts]
        probabilities = [part.batch.probabilities * part.share for part in parts]
        return diskreplay.Draw(np.concatenate(ids), np.concatenate(probabilities))

    def _sequences(self, n: int, beta: float | None, options: dict[str, Any]) -> Any:
        if options["pad"]:
            return self._finish(self._begin("sample_sequences", "n", n, options), beta)
        draw = self._begin("whole_sequences", "n", n, options)
        whole = WholeSequences(
            draw.n,
            options["length"],
            is_distinct=self._kind == "uniform",
            generator=Streams(self._seed, self._copy_number).of(draw.number, 1),
        )
        while True:
            parts, size = self._parts(draw)
            wanted = whole.take(parts, draw.n, size)
            if not wanted:
                return self._joined(whole.parts, size, beta)
            draw = self._ask(draw, wanted)


def unusual(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a draw that differ from the defaults: less to send."""
    defaults = {"pad": False, "n_step": 1}
    found = {name: value for name, value in options.items() if defaults.get(name) != value}
    if "n_step" not in found:
        found.pop("gamma", None)
    return found
