"""The iterator over the batches of a mixture, with batches drawn ahead and without."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from typing import Any

import pytest
from common import columns
from mixed import prioritized, uniform, whole

from diskreplay import ArgumentError, ClosedError, Mixture, ReplayBuffer, SampleError


def mixed(**settings: Any) -> Mixture:
    return Mixture({"a": uniform(0, 60), "b": prioritized(1, 60)}, seed=1, **settings)


def as_lists(batch: Any) -> list[Any]:
    whole(batch)
    return [element.tolist() for element in batch]


def wait_until_drawn(mixture: Mixture, draws: int) -> None:
    while mixture.draws < draws:  # the test has a limit of time
        pass


@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize("reuse", [False, True])
def test_batches_are_those_of_sample(prefetch: int, reuse: bool) -> None:
    twin = mixed()
    wanted = [as_lists(twin.sample(8)) for _ in range(21)]
    found, prepared = [], []

    def prepare(batch: Any) -> Any:
        prepared.append(as_lists(batch))
        return batch

    mixture = mixed()
    with mixture.batches(8, prefetch, reuse=reuse, prepare=prepare, frames=True) as batches:
        assert iter(batches) is batches
        for _, batch in zip(range(21), batches, strict=False):
            found.append(as_lists(batch))
    assert found == wanted
    assert prepared[:21] == wanted
    assert 21 <= mixture.draws <= 21 + prefetch  # counted when drawn
    batches.close()
    with pytest.raises(ClosedError, match=r"call batches\(\) again"):
        next(batches)
    whole(mixture.sample(8))


def test_batches_that_are_ready_are_prepared_early() -> None:
    mixture, prepared = mixed(), []

    def prepare(batch: Any) -> Any:
        prepared.append(batch)
        return batch

    with mixture.batches(8, 3, prepare=prepare) as batches:
        next(batches)
        wait_until_drawn(mixture, 4)
        next(batches)
        assert len(prepared) >= 4


@pytest.mark.parametrize("prefetch", [0, 3])
def test_arrays_are_used_again_only_with_reuse(prefetch: int) -> None:
    for reuse in (False, True):
        with mixed().batches(8, prefetch, reuse=reuse) as batches:
            places = [next(batches).states.ctypes.data for _ in range(2 * prefetch + 9)]
            kept = next(batches)
            lists = as_lists(kept)
            for _ in range(2 * prefetch + 9):
                last = next(batches)
            assert (as_lists(kept) == lists) is not reuse or prefetch
            del last
        assert reuse is (len(set(places)) <= prefetch + 2) or not reuse


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_of_prepare_is_raised_and_the_batch_comes_again(prefetch: int) -> None:
    twin, failures = mixed(), iter([False, True, False])

    def prepare(batch: Any) -> Any:
        if prefetch and next(failures, False):
            raise ValueError("not yet")
        return batch

    with mixed().batches(8, prefetch, prepare=prepare) as batches:
        found = []
        while len(found) < 4:
            try:
                found.append(as_lists(next(batches)))
            except ValueError as error:
                assert str(error) == "not yet"  # noqa: PT017
    assert found == [as_lists(twin.sample(8)) for _ in range(4)]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_errors_of_sample_are_raised_and_drawing_goes_on(prefetch: int) -> None:
    mixture = Mixture({"a": uniform(0, 60)}, lambda n: {"a": int(len(mixture["a"]) > 60)})
    with mixture.batches(4, prefetch) as batches:
        for _ in range(3):
            with pytest.raises(ArgumentError, match=r"weights\(0\) must have a sum above 0"):
                next(batches)
        mixture["a"].push(*[column[0] for column in mixture["a"].get([0])])
        for _ in range(3):
            assert next(batches).rewards.shape == (4,)
        wait_until_drawn(mixture, 3 + prefetch)  # ahead again


@pytest.mark.parametrize("prefetch", [0, 2])
def test_closing_the_mixture_or_a_source_is_told(prefetch: int) -> None:
    for close, message in (
        (lambda mixture: mixture.close(), "this mixture of a, b is closed"),
        (lambda mixture: mixture["b"].close(), "source 'b': the buffer at .* is closed"),
    ):
        mixture = mixed()
        with mixture.batches(8, prefetch) as batches:
            next(batches)
            close(mixture)
            with pytest.raises(ClosedError, match=message):  # after those drawn before
                all(next(batches).rewards.size for _ in range(prefetch + 3))


def test_threads_end_with_their_iterator() -> None:
    mixture = mixed()
    before = threading.active_count()
    for _ in range(4):
        batches = mixture.batches(8, 2)
        next(batches)
        del batches
    with mixture.batches(8, 2) as batches:
        next(batches)
    of_mixture = weakref.ref(mixture)
    del batches, mixture
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "diskreplay mixture":
            thread.join(10)
    assert threading.active_count() <= before + 1  # that of the buffers' commits
    assert of_mixture() is None


def test_several_threads_take_batches() -> None:
    twin = mixed()
    wanted = sorted(str(as_lists(twin.sample(8))) for _ in range(40))
    found: list[str] = []
    with mixed().batches(8, 3) as batches:

        def take() -> None:
            for _ in range(10):
                found.append(str(as_lists(next(batches))))

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == wanted


def test_more_batches_ahead_than_memory_holds_are_refused() -> None:
    message = r"prefetch=10{12} keeps 10{11}1 batches of 8 transitions in .* of memory"
    with pytest.raises(ArgumentError, match=message):
        mixed().batches(8, 10**12)
    empty = ReplayBuffer(100)
    with Mixture({"a": empty}).batches(8, 10**12) as batches:  # its rows are not known yet
        empty.extend(**columns(0, 60))
        for _ in range(2):
            with pytest.raises(ArgumentError, match=message):
                next(batches)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_are_neither_pickled_nor_copied(prefetch: int) -> None:
    with mixed().batches(8, prefetch) as batches:
        for copied in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(ArgumentError, match="pickle the mixture, and call batches"):
                copied(batches)
        assert next(batches).rewards.shape == (8,)


def test_wrong_arguments_are_refused() -> None:
    mixture = mixed()
    for bad in (0, -1, 1.5, "3", None):
        with pytest.raises(ArgumentError, match="batch_size must be a whole number"):
            mixture.batches(bad)  # type: ignore[arg-type]
    for name, wrong in (("prefetch", -1), ("readers", -1), ("reuse", 1), ("frames", 1), ("pad", 1)):
        with pytest.raises(ArgumentError, match=f"{name} must be"):
            mixture.batches(8, **{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"a mixture has no reader processes .*readers=2"):
        mixture.batches(8, 2, 2)
    with pytest.raises(ArgumentError, match=r"pad=True .*\(found reuse=True\)"):
        mixture.batches(8, reuse=True, pad=True)
    with pytest.raises(ArgumentError, match="prepare must be a function"):
        mixture.batches(8, prepare=3)  # type: ignore[arg-type]
    with pytest.raises(SampleError):
        next(mixture.batches(1000))
