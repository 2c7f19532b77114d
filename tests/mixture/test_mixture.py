"""Which batches a mixture draws, what it says of itself, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns
from mixed import APART, counts_of, prioritized, uniform, whole

import diskreplay
from diskreplay import (
    ArgumentError,
    Batch,
    ClosedError,
    LockedError,
    Mixture,
    NotAStoreError,
    PrioritizedBatch,
    PriorityError,
    ReplayBuffer,
    SampleError,
)


def test_a_source_gives_what_its_own_sample_would_have_given() -> None:
    a, b, twin_a, twin_b = (uniform(k, 60) for k in (0, 1, 0, 1))
    mixture = Mixture({"a": a, "b": b}, {"a": 3, "b": 1}, seed=1)
    for turn in range(5):
        batch = mixture.sample(40)
        assert type(batch) is not Batch
        assert isinstance(batch, Batch)
        assert batch._fields == (*Batch._fields, "sources")
        numbers = whole(batch)
        assert numbers[:30].tolist() == whole_of(twin_a.sample(30), 0)
        assert numbers[30:].tolist() == whole_of(twin_b.sample(10), 1)
        assert batch.sources.tolist() == [0] * 30 + [1] * 10
        assert mixture.draws == turn + 1


def whole_of(batch: Any, place: int) -> list[int]:
    return (batch.indices + APART * place).tolist()


def test_one_prioritized_source_makes_a_prioritized_batch() -> None:
    mixture = Mixture({"a": uniform(0, 60), "b": prioritized(1, 60)}, {"a": 1, "b": 1})
    batch = mixture.sample(8)
    assert isinstance(batch, PrioritizedBatch)
    assert batch._fields == (*PrioritizedBatch._fields, "sources")
    whole(batch)
    only = Mixture({"b": mixture["b"]}, seed=3)
    assert only.sample(8)._fields[5:] == ("weights", "indices", "sources")


def test_by_default_sources_give_in_proportion_to_their_sizes() -> None:
    a, b, empty = uniform(0, 90), uniform(1, 30), ReplayBuffer(10)
    mixture = Mixture({"a": a, "empty": empty, "b": b})
    for _ in range(5):
        batch = mixture.sample(8)
        assert counts_of(batch, 3) == [6, 0, 2]
    b.extend(**columns(APART + 30, 60))
    assert counts_of(mixture.sample(8), 3) == [4, 0, 4]
    assert (len(mixture), mixture.sizes) == (180, {"a": 90, "empty": 0, "b": 90})


def test_a_schedule_sets_the_shares_of_each_batch() -> None:
    mixture = Mixture(
        {"online": uniform(0, 60), "demos": uniform(1, 60)},
        lambda number: {"online": min(number, 4), "demos": max(0, 4 - number)},
        draws=1,
    )
    found = [counts_of(mixture.sample(8), 2) for _ in range(4)]
    assert found == [[2, 6], [4, 4], [6, 2], [8, 0]]


def test_shares_on_average_differ_from_batch_to_batch() -> None:
    mixture = Mixture({"a": uniform(0, 60), "b": uniform(1, 60)}, {"a": 1, "b": 1}, exact=False)
    found = {counts_of(mixture.sample(16), 2)[0] for _ in range(40)}
    assert len(found) > 3


def test_the_same_seed_and_draws_give_the_same_batches(tmp_path: Path) -> None:
    def drawn(stops: bool) -> list[list[int]]:
        place = tmp_path / str(stops)
        arguments: Any = {"weights": {"a": 1, "b": 1, "c": 1}, "seed": 5}
        found = []

        def open_all() -> list[Any]:
            kinds = (ReplayBuffer, ReplayBuffer, diskreplay.PrioritizedReplayBuffer)
            return [kind(APART, seed=k, path=place / "abc"[k]) for k, kind in enumerate(kinds)]

        buffers = open_all()
        for k, buffer in enumerate(buffers):
            buffer.extend(**columns(APART * k, 60))
        mixture = Mixture(dict(zip("abc", buffers, strict=True)), **arguments)
        for turn in range(20):
            if stops and turn == 11:
                draws = mixture.draws
                for buffer in buffers:
                    buffer.close()
                buffers = open_all()
                mixture = Mixture(dict(zip("abc", buffers, strict=True)), **arguments, draws=draws)
            batch = mixture.sample(16)
            mixture.update_priorities(batch, batch.rewards)
            found.append(whole(batch).tolist())
        for buffer in buffers:
            buffer.close()
        return found

    assert drawn(stops=True) == drawn(stops=False)


def test_rewound_buffers_and_the_draws_of_a_mark_give_the_same_batches_again() -> None:
    buffers = {"a": uniform(0, 60), "b": prioritized(1, 60)}

    def drawn(mixture: Mixture) -> list[list[int]]:
        found = []
        for _ in range(5):
            batch = mixture.sample(10)
            mixture.update_priorities(batch, batch.rewards)
            buffers["a"].extend(**columns(buffers["a"].count, 1))
            found.append(whole(batch).tolist())
        return found

    mixture = Mixture(buffers, {"a": 1, "b": 2}, seed=4)
    drawn(Mixture(buffers, seed=1))
    mixture.sample(10)
    for buffer in buffers.values():
        buffer.mark("here", data={"draws": mixture.draws})
    first = drawn(mixture)
    for buffer in buffers.values():
        buffer.rewind("here")
    [mark] = buffers["a"].marks()
    again = Mixture(buffers, {"a": 1, "b": 2}, seed=4, draws=mark.data["draws"])
    assert drawn(again) == first


def test_paths_have_streams_that_follow_from_the_seed(tmp_path: Path) -> None:
    for k in (0, 1):
        uniform(k, 60, path=tmp_path / str(k)).close()
    sources = {"a": tmp_path / "0", "b": str(tmp_path / "1")}

    def drawn(seed: int | None, draws: int = 0) -> list[list[int]]:
        with Mixture(sources, seed=seed, draws=draws) as mixture:
            return [whole(mixture.sample(20)).tolist() for _ in range(3)]

    assert drawn(1) == drawn(1)
    assert drawn(1, draws=3) == drawn(1, draws=3)
    assert len({str(found) for found in (drawn(1), drawn(2), drawn(1, 3), drawn(None))}) == 4


def test_a_draw_is_that_of_sample_without_the_rows() -> None:
    sources = [{"a": uniform(0, 60), "b": prioritized(1, 30)} for _ in range(2)]
    one, twin = (Mixture(of, {"a": 1, "b": 3}, seed=1) for of in sources)
    for turn in range(6):
        batch = one.sample(10)
        drawn = twin.draw(10) if turn % 2 else twin.sample(10)
        assert drawn.indices.tolist() == batch.indices.tolist()
        assert drawn.sources.tolist() == batch.sources.tolist()
    indices, probabilities, of = one.draw(20)
    masses = (np.arange(30) % 3 + 1) / 60
    expected = np.where(of == 0, 0.25 / 60, 0.75 * masses[indices % 30])
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def walked(place: int, kind: Any, **settings: Any) -> Any:
    """A buffer of episodes of 7 steps, each with the reward 1."""
    buffer = kind(APART, seed=place, **settings)
    for i in range(42):
        buffer.push([float(i)], place, 1.0, [i + 1.0], i % 7 == 6)
    return buffer


def test_n_step_returns_are_those_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"a": ReplayBuffer, "b": diskreplay.PrioritizedReplayBuffer}
    sources, twins = (
        {name: walked(place, kind) for place, (name, kind) in enumerate(kinds.items())}
        for _ in range(2)
    )
    for large in (2**62, 0):
        monkeypatch.setattr("diskreplay.mixture.assembly._LARGE", large)
        mixture = Mixture(sources, {"a": 1, "b": 1}, seed=1)
        out = None
        for turn in range(6):
            n_step = 3 if turn % 3 else 1
            with mixture.batches(16, n_step=n_step, gamma=0.5) as batches:
                batch = next(batches) if turn % 2 else mixture.sample(16, n_step=n_step, gamma=0.5)
            parts = [twins[name].sample(8, n_step=n_step, gamma=0.5) for name in kinds]
            names = ["discounts"] if n_step > 1 else []
            assert batch._fields[7:] == (*names, "sources")
            for name in [*Batch._fields, "indices", *names]:
                wanted = np.concatenate([getattr(part, name) for part in parts])
                assert getattr(batch, name).tolist() == wanted.tolist()
            steps = np.minimum(7 - batch.indices % 7, n_step)
            assert (batch.next_states[:, 0] == batch.indices + steps).all()
            if n_step > 1:
                assert (batch.discounts == 0.5**steps).all()
                again = batch if out is None else out
                out = mixture.sample(16, out=again, n_step=n_step, gamma=0.5)
                assert out is again
                for name in kinds:
                    twins[name].sample(8)
    with pytest.raises(ArgumentError, match="out must be an earlier batch of this mixture"):
        mixture.sample(16, out=out)


def test_priorities_go_home() -> None:
    a, b, c = prioritized(0, 30), uniform(1, 30), prioritized(2, 30)
    mixture = Mixture({"a": a, "b": b, "c": c}, {"a": 1, "b": 1, "c": 2})
    batch = mixture.sample(16)
    for drawn in (batch, mixture.draw(16)):
        before = {name: mixture[name].priorities(range(30)) for name in "ac"}
        new = 10.0 + np.arange(16)
        assert mixture.update_priorities(drawn, new) == 12
        for k, name in ((0, "a"), (2, "c")):
            wanted = before[name]
            for i in np.flatnonzero(drawn.sources == k):
                wanted[drawn.indices[i]] = new[i]  # the last of duplicates wins
            assert mixture[name].priorities(range(30)).tolist() == wanted.tolist()
    kept = a.priorities(range(30)).tolist()
    for bad in (np.r_[np.full(15, 5.0), -1.0], [1.0] * 15, np.full(16, np.nan)):
        with pytest.raises(PriorityError):
            mixture.update_priorities(batch, bad)
    assert a.priorities(range(30)).tolist() == kept
    a.clear()  # now stale there
    assert mixture.update_priorities(batch, new) == 8
    with pytest.raises(ArgumentError, match="takes a batch of this mixture, whose `sources`"):
        mixture.update_priorities(c.sample(4), np.ones(4))
    with pytest.raises(ArgumentError, match=r"places in \('a', 'b', 'c'\)"):
        mixture.update_priorities(batch._replace(sources=batch.sources + 1), new)


def test_priorities_of_sources_that_only_read_stay(tmp_path: Path) -> None:
    prioritized(1, 30, path=tmp_path / "demos").close()
    online = prioritized(0, 30)
    sources = {"online": online, "demos": tmp_path / "demos"}
    with Mixture(sources, {"online": 1, "demos": 1}) as mixture:
        batch = mixture.sample(16)
        assert mixture.update_priorities(batch, np.full(16, 9.0)) == 8
        assert mixture["demos"].priorities(range(30)).max() == 3
        assert online.max_priority == 9


def test_too_small_a_source_is_named_and_nothing_is_drawn() -> None:
    buffers = {"online": uniform(0, 60), "demos": uniform(1, 3)}
    twins = {"online": uniform(0, 60), "demos": uniform(1, 3)}
    mixture = Mixture(buffers, {"online": 1, "demos": 1}, seed=2)
    message = (
        r"source 'demos' holds 3 transitions \(expected at least the 4 that it gives to this batch "
        r"of 8\): wait until is_ready\(8\), or give it the weight 0"
    )
    for call in (mixture.sample, mixture.draw):
        with pytest.raises(SampleError, match=message):
            call(8)
    assert mixture.draws == 0
    assert [mixture.is_ready(n) for n in (0, 6, 7, 8)] == [True, True, False, False]
    twin = Mixture(twins, {"online": 1, "demos": 1}, seed=2)
    assert whole(mixture.sample(6)).tolist() == whole(twin.sample(6)).tolist()
    on_average = Mixture(buffers, {"online": 1, "demos": 1}, exact=False)
    assert [on_average.is_ready(n) for n in (0, 3, 4)] == [True, True, False]
    left_out = Mixture(buffers, lambda n: {"online": 1, "demos": len(buffers["demos"]) >= 60})
    assert counts_of(left_out.sample(60), 2) == [60, 0]


def test_a_source_is_ready_as_far_as_its_sampler_may_draw() -> None:
    source = ReplayBuffer(10, sampler=diskreplay.samplers.AtMost(1))
    source.extend(**columns(0, 8))
    mixture = Mixture({"online": source, "demos": uniform(10, 10)}, {"online": 1, "demos": 1})
    assert mixture.is_ready(16)
    mixture.sample(6)
    assert [mixture.is_ready(n) for n in (10, 12)] == [True, False]


def test_empty_sources_are_told(tmp_path: Path) -> None:
    mixture = Mixture({"a": ReplayBuffer(10), "b": ReplayBuffer(10)})
    with pytest.raises(SampleError, match="the sources 'a', 'b' hold no transitions"):
        mixture.sample(1)
    assert not mixture.is_ready(1)
    assert (len(mixture), mixture.schema, list(mixture)) == (0, None, [])
    assert mixture.stats()["shares"] == {"a": None, "b": None}
    mixture["b"].extend(**columns(APART, 3))
    assert counts_of(mixture.sample(3), 2) == [0, 3]


def test_a_source_that_is_closed_or_cleared_meanwhile_is_named() -> None:
    a, b = uniform(0, 60), uniform(1, 60)
    mixture = Mixture({"a": a, "b": b}, {"a": 1, "b": 1})
    mixture.sample(8)
    b.clear()
    with pytest.raises(SampleError, match="source 'b' holds 0 transitions"):
        mixture.sample(8)
    b.extend(**columns(APART + 60, 60))
    assert (mixture.sample(8).indices[4:] >= 60).all()
    b.close()
    for call in (
        lambda: mixture.sample(8), lambda: mixture.draw(8), lambda: len(mixture),
        mixture.refresh, mixture.flush, mixture.check,
    ):  # fmt: skip
        with pytest.raises(ClosedError, match=r"source 'b': the buffer at .* is closed"):
            call()


def test_closing_closes_paths_and_leaves_buffers_open(tmp_path: Path) -> None:
    uniform(1, 60, path=tmp_path / "demos").close()
    online = uniform(0, 60)
    with Mixture({"online": online, "demos": tmp_path / "demos"}) as mixture:
        demos = mixture["demos"]
        with pytest.raises(LockedError):
            diskreplay.open(tmp_path / "demos", access="read")
    mixture.close()
    with pytest.raises(ClosedError):
        len(demos)
    assert len(online) == 60
    diskreplay.open(tmp_path / "demos").close()
    for call in (
        lambda: mixture.sample(8), lambda: mixture.draw(8), lambda: mixture.batches(8),
        lambda: len(mixture), lambda: list(mixture), lambda: mixture.is_ready(1),
        lambda: mixture.sizes, lambda: mixture.schema, mixture.stats, mixture.check,
        mixture.refresh, mixture.flush, mixture.__enter__,
        lambda: mixture.update_priorities(online.sample(1)._replace(), []),
    ):  # fmt: skip
        with pytest.raises((ClosedError, ArgumentError), match="mixture"):
            call()
    assert "closed" in repr(mixture)


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    uniform(0, 60, path=tmp_path / "a").close()
    open_here = uniform(1, 60, path=tmp_path / "b")
    for bad, error, message in (
        (tmp_path / "none", NotAStoreError, "source 'x': .*holds no store|source 'x': "),
        (tmp_path / "b", LockedError, "source 'x': "),
        (3, ArgumentError, r"source 'x' must be a buffer or the path of a store \(found int\)"),
        (Mixture({"b": open_here}), ArgumentError, r"source 'x' must be .*\(found Mixture\)"),
    ):
        with pytest.raises(error, match=message) as found:
            Mixture({"a": tmp_path / "a", "x": bad})
        diskreplay.open(tmp_path / "a").close()  # while the frames of the error are there
        del found
    with pytest.raises(ArgumentError, match="weights must name each source") as found:
        Mixture({"a": tmp_path / "a"}, {"b": 1})
    diskreplay.open(tmp_path / "a").close()
    del found
    for bad in ({}, None, ["a"], open_here):
        with pytest.raises(ArgumentError, match="a mixture needs a dictionary of buffers or paths"):
            Mixture(bad)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="the name of a source must be a text"):
        Mixture({3: open_here})  # type: ignore[dict-item]


def test_wrong_arguments_are_refused() -> None:
    mixture = Mixture({"a": uniform(0, 60)})
    for bad in (0, -1, 1.5, "3", None, True):
        with pytest.raises(ArgumentError, match="batch_size must be a whole number"):
            mixture.sample(bad)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="n must be a whole number"):
            mixture.draw(bad)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no source of this mixture is prioritized"):
        mixture.sample(8, beta=0.5)
    for name, bad in (("n_step", 0), ("n_step", 1.5), ("gamma", 1.1), ("gamma", None)):
        with pytest.raises(ArgumentError, match=f"{name} must be"):
            mixture.sample(8, **{name: bad})
        with pytest.raises(ArgumentError, match=f"{name} must be"):
            mixture.batches(8, **{name: bad})
    with pytest.raises(ArgumentError, match="no source 'b': expected one of a"):
        mixture["b"]
    for name, bad in (("seed", -1), ("draws", -1), ("draws", 0.5), ("exact", "no")):
        with pytest.raises(ArgumentError, match=f"{name} must be"):
            Mixture({"a": mixture["a"]}, **{name: bad})  # type: ignore[arg-type]


def test_it_says_what_is_in_it() -> None:
    mixture = Mixture({"a": uniform(0, 3), "b": prioritized(1, 2)}, {"a": 1, "b": 3}, seed=0)
    assert mixture.names == ("a", "b")
    assert [int(e.reward * 8) for e in mixture] == [0, 1, 2, APART, APART + 1]
    assert mixture.schema == mixture["a"].schema
    stats = mixture.stats()
    json.dumps(stats)
    assert (stats["size"], stats["draws"], stats["exact"]) == (5, 0, True)
    assert stats["shares"] == {"a": 0.25, "b": 0.75}
    assert stats["sources"]["b"]["kind"] == "prioritized"
    assert repr(mixture) == "Mixture('a', 'b', draws=0)"
    mixture.flush()
    mixture.refresh()
    mixture.check()
