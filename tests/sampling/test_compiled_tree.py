"""The compiled steps of a tree: bit for bit those of numpy, and used where they can be."""
# ruff: noqa: S301  what is unpickled is what was pickled before

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from common import run_python
from hypothesis import given
from hypothesis import strategies as st
from sampling import STEPS, use_steps

from diskreplay import SumTree
from diskreplay.sampling import sum_tree
from diskreplay.sampling.compiled_tree import CompiledTree, assign, compiled_tree, find

PLAIN = CompiledTree(find, assign)  # the same functions, as they are
needs_numba = pytest.mark.skipif(not find_spec("numba"), reason="numba is not installed")

tiny = st.integers(1, 60).flatmap(lambda k: st.integers(0, 7).map(lambda m: (8 + m) * 2.0**-k))
sizes = st.just(0.0) | st.floats(0.0, 9.0) | tiny | st.floats(0.0, 1e295)
parts = st.floats(-0.25, 1.25) | st.sampled_from([0.0, 0.5, 1.0, 5e-324])


@pytest.mark.parametrize(
    "steps", [pytest.param(PLAIN, id="plain"), pytest.param(compiled_tree(), marks=needs_numba)]
)
@pytest.mark.parametrize("wide", [1, 8, 1024])
@given(data=st.data())
def test_sums_and_leaves_are_bit_for_bit_those_of_numpy(
    steps: CompiledTree, wide: int, data: st.DataObject
) -> None:
    capacity = data.draw(st.integers(1, 200))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sum_tree, "_WIDE", wide)
        tree, twin = SumTree(capacity), SumTree(capacity)
        for _ in range(4):
            n = data.draw(st.integers(1, 40))
            slots = data.draw(st.lists(st.integers(0, capacity - 1), min_size=n, max_size=n))
            masses = np.array(data.draw(st.lists(sizes, min_size=n, max_size=n)))
            edges = np.cumsum(twin.masses(np.arange(capacity)))
            values = [*edges, *np.nextafter(edges, 0.0), *np.nextafter(edges, np.inf)]
            values += [part * edges[-1] for part in data.draw(st.lists(parts, max_size=20))]
            found = []
            for one, used in ((tree, steps), (twin, None)):
                use_steps(patch, used)
                if one.total_priority:
                    found.append([array.tobytes() for array in one.find(values)])
                one.set(slots, masses)
                one.fill(slots[0], masses[: capacity - slots[0]])
            assert found[:1] == found[1:]
            assert tree._sums.tobytes() == twin._sums.tobytes()
            tree.check()


@needs_numba
def test_a_large_tree_is_bit_for_bit_that_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled_tree(), "numba is installed and does not work"
    generator, capacity = np.random.default_rng(5), 300_001
    tree, twin = SumTree(capacity), SumTree(capacity)
    masses = generator.random(capacity)
    for n in (1, 7, 256, 20_000):  # the last is more than the compiled functions are used for
        values, new = generator.random(n) * masses.sum(), generator.random(n)
        found = []
        for one, used in ((tree, compiled_tree()), (twin, None)):
            use_steps(monkeypatch, used)
            if n == 1:
                one.fill(0, masses)
            found.append(one.find(values))
            one.set(found[0][0], new)
        assert [a.tobytes() for a in found[0]] == [a.tobytes() for a in found[1]]
        assert tree._sums.tobytes() == twin._sums.tobytes()


@pytest.mark.parametrize("steps", STEPS)
def test_arrays_of_any_layout_are_taken(steps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_steps(monkeypatch, STEPS[steps])
    packed = np.zeros(4, [("gap", "u1"), ("slot", "i8"), ("mass", "f8")])  # unaligned, strided
    packed["slot"], packed["mass"] = [3, 0, 2, 0], [1.0, 2.0, 3.0, 4.0]
    fixed = np.array([1.0, 2.0, 3.0, 4.0])
    fixed.flags.writeable = False
    for slots, masses in [
        (packed["slot"], packed["mass"]),
        (packed["slot"], fixed),
        (np.array([[3, 0], [2, 0]]), np.array([[1.0, 2.0], [3.0, 4.0]])),
        (np.array([3, 0, 2, 0], ">u4"), np.array([1, 2, 3, 4], ">i2")),
    ]:
        tree = SumTree(4)
        tree.set(slots, masses)
        assert tree.masses(range(4)).tolist() == [4.0, 0.0, 3.0, 1.0]
        assert tree.find(packed["mass"])[0].tolist() == [0, 0, 0, 2]
        assert tree.find(fixed)[0].tolist() == [0, 0, 0, 2]
        tree.check()


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))])
def test_a_copy_is_a_tree_of_its_own(
    copied: Callable[[SumTree], SumTree], steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_steps(monkeypatch, STEPS[steps])
    tree = SumTree(3)
    tree.add(4.0, "data")
    assert tree.get(0.0) == (0, 4.0, "data")
    other = copied(tree)
    other.update(1, 5.0)
    assert other.masses(range(3)).tolist() == [4.0, 5.0, 0.0]
    assert (other.get(4.0), other.get(0.0)) == ((1, 5.0, None), (0, 4.0, "data"))
    assert tree.masses(range(3)).tolist() == [4.0, 0.0, 0.0]
    other.check()
    tree.check()


@pytest.mark.parametrize(
    "numba",
    ["raise ImportError('Numba needs NumPy 1.0 or less')", "raise RuntimeError('no place')", ""],
)
def test_numba_is_loaded_by_the_first_draw_and_not_used_where_it_does_not_work(
    numba: str, tmp_path: Path
) -> None:
    (tmp_path / "numba.py").write_text(f"print('loaded', flush=True)\n{numba}\n")
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import diskreplay
        with diskreplay.PrioritizedReplayBuffer(100, seed=1) as buffer:
            for i in range(10):
                buffer.push([float(i)], 0, 1.0, [0.0], False)
            buffer.update_priorities([1], [2.0])
            print("opened", flush=True)
            for _ in range(3):
                buffer.update_priorities(buffer.sample(4).indices, [1.0] * 4)
            print(buffer.frame)
    """
    assert run_python(code).stdout.split() == ["opened", "loaded", "3"]
