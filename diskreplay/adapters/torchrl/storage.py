"""DiskReplayStorage: a storage for the replay buffers of TorchRL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import (
    TensorDict,
    is_leaf_nontensor,
    is_tensor_collection,
    is_tensorclass,
    lazy_stack,
)
from torchrl.data.replay_buffers.checkpointers import StorageCheckpointerBase
from torchrl.data.replay_buffers.storages import Storage, TensorStorage

import diskreplay
from diskreplay.adapters.torchrl.names import SINGLE, Key, Kind, keys_of, nested, schema_of

_MARK = "torchrl-"
_KEPT_MARKS = 8  # a kill may come while a checkpoint is written, and the one before is needed
_FILE = "diskreplay.json"
_TRAJECTORY = ("collector", "traj_ids")


class Checkpointer(StorageCheckpointerBase):  # type: ignore[misc]  # of torchrl, which may miss
    """Writes and reads a pointer to the store, in place of the transitions."""

    def dumps(self, storage: DiskReplayStorage, path: Any) -> None:
        """Write the state of a storage to a directory."""
        directory = Path(path)
        directory.mkdir(exist_ok=True)
        (directory / _FILE).write_text(json.dumps(storage.state_dict()))

    def loads(self, storage: DiskReplayStorage, path: Any) -> None:
        """Load the state of a storage from a directory."""
        storage.load_state_dict(json.loads((Path(path) / _FILE).read_text()))


# TorchRL chooses by the type of a storage how batches are put together, and which samplers may read
# it. What a TensorStorage does with tensors in memory is replaced here.
class DiskReplayStorage(TensorStorage):  # type: ignore[misc]
    """A storage of TorchRL whose transitions are in a store of diskreplay.

    It takes tensordicts and tensorclasses of tensors, nested or not, and returns fresh tensors on
    the CPU. The writer must be one that goes round, as by default, since a transition on disk is
    never changed. Where there is a store at the path already, `resume(buffer)` goes on in it.

    >>> from tensordict import TensorDict
    >>> from torchrl.data import TensorDictReplayBuffer
    >>> storage = DiskReplayStorage(1000, path="runs/a")
    >>> buffer = TensorDictReplayBuffer(storage=storage, batch_size=4)
    >>> steps = {"observation": torch.rand(8, 3), "action": torch.zeros(8, 2)}
    >>> after = {"observation": torch.rand(8, 3), "reward": torch.ones(8, 1)}
    >>> index = buffer.extend(TensorDict({**steps, "next": after}, [8]))
    >>> buffer.sample()["next", "reward"].shape
    torch.Size([4, 1])
    >>> storage.buffer.sample(4).states["observation"].shape  # without TorchRL
    (4, 3)

    max_size:   number of transitions that it holds when full
    path:       the directory of the store; None makes a temporary one
    arguments:  further arguments of `diskreplay.ReplayBuffer`, such as frame_axis and keep_rows
    """

    _default_checkpointer = Checkpointer
    supports_conditional_update = False

    def __init__(self, max_size: int, path: Any = None, **arguments: Any) -> None:
        Storage.__init__(self, max_size)
        self.device = torch.device("cpu")
        self._total_shape_value = torch.Size([self.max_size])
        self._arguments = {"capacity": max_size, "path": path, **arguments}
        if self._arguments.get("access") == "shared":
            raise diskreplay.ArgumentError(
                'a storage needs access="exclusive" or "read" (found "shared"): where several '
                "processes write, a transition has no place in the ring before its commit"
            )
        self._buffer = diskreplay.ReplayBuffer(**self._arguments)
        self._origin = self._buffer.first  # the write id whose place in the ring is 0
        self._schema: diskreplay.Schema | None = None
        self._keys: dict[str, Key] = {}
        self._shapes: dict[Key, torch.Size] = {}  # of nested tensordicts, beside that of the batch
        self._type: Any = None  # of tensorclasses
        self._use(self._buffer.schema)

    @property
    def buffer(self) -> diskreplay.ReplayBuffer:
        """The buffer of diskreplay that holds the transitions."""
        return self._buffer

    @property
    def initialized(self) -> bool:
        """Whether the keys of the transitions are known."""
        return self._schema is not None

    @property
    def _len(self) -> int:
        return len(self)

    def resume(self, buffer: Any) -> None:
        """Set where a replay buffer of TorchRL writes next: behind the transitions in the store.

        Call it once the replay buffer is made; for an empty store it does nothing.
        """
        size = len(self)
        state = {"_cursor": size % self.max_size, "_write_count": size}
        buffer.writer.load_state_dict({**buffer.writer.state_dict(), **state})

    def set(self, cursor: Any, data: Any, *, set_cursor: bool = True) -> None:
        """Add transitions at the next places of the ring, which `cursor` has to name."""
        if isinstance(data, list) and all(map(is_tensor_collection, data)):
            data = lazy_stack(data)
        if not is_tensor_collection(data):
            raise TypeError(
                f"a DiskReplayStorage takes tensordicts and tensorclasses (found "
                f"{type(data).__name__}): give the value a key, TensorDict({{'data': value}}, [n])"
            )
        places = _places(cursor, self.max_size)
        if not places.ndim:
            data, places = data.unsqueeze(0), places[None]
        begin = self._buffer.count - self._origin
        expected = (begin + np.arange(len(places))) % self.max_size
        if not np.array_equal(places, expected):
            raise diskreplay.ArgumentError(
                f"the next place of the ring is {begin % self.max_size} (found "
                f"{places.tolist()[:1]}): transitions on disk are not changed. After an opening "
                "call storage.resume(replay_buffer); of writers take a RoundRobinWriter"
            )
        if set_cursor:
            self._set_last_cursor(cursor)
        self._extend(data)
        self._bump_mutation_revision()

    def get(self, index: Any) -> Any:
        """Return the transitions at places of the ring, as a tensordict of fresh tensors."""
        if self._schema is None:
            raise RuntimeError("Cannot get elements out of a non-initialized storage.")
        if isinstance(index, str) or (isinstance(index, tuple) and isinstance(index[0], str)):
            return self._read(np.arange(len(self)), _as_key(index)).get(index)
        if isinstance(index, tuple) and len(index) == 1:
            [index] = index
        size = len(self)
        places = _places(index, size)
        if places.size and not (-size <= places.min() and places.max() < size):
            raise IndexError(f"expected places below {size} (found {index!r:.100})")
        return self._read(places % max(1, size))

    def _read(self, places: Any, key: Key = ()) -> Any:
        """Return the transitions at places, or their values below a key."""
        names = [name for name, own in self._keys.items() if own[: len(key)] == key]
        if not names:
            raise KeyError(f"the transitions have no key {key} (found {list(self._keys.values())})")
        first = self._buffer.first
        write_ids = first + (places - (first - self._origin)) % self.max_size
        found = self._buffer.get(write_ids, fields=names)
        tensors = ((name, torch.as_tensor(found[name])) for name in names)
        values = (
            (self._keys[name], tensor.unsqueeze(-1) if name in SINGLE else tensor)
            for name, tensor in tensors
        )
        shape = torch.Size(places.shape)
        data = TensorDict(nested(values), batch_size=shape + self._shapes.get((), torch.Size()))
        for inner, more in self._shapes.items():
            if inner and (part := data.get(inner, None)) is not None:
                part.batch_size = shape + more
        return data if self._type is None or key else self._type.from_tensordict(data)

    def state_dict(self) -> dict[str, Any]:
        """Mark this moment in the store, and return its name: no transition is copied."""
        name = f"{_MARK}{self._buffer.count}"
        self._buffer.mark(name, data={"origin": self._origin})
        own = [mark.name for mark in self._buffer.marks() if mark.name.startswith(_MARK)]
        for old in own[:-_KEPT_MARKS]:
            self._buffer.delete_mark(old)
        return {"path": str(self._buffer.path), "mark": name}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the store back to the moment at which `state_dict` was called.

        Raises MismatchError where this is another store, and where transitions of that moment are
        overwritten; `keep_rows=` keeps as many as may come after a checkpoint.
        """
        marks = {mark.name: mark for mark in self._buffer.marks()}
        mark = marks.get(state_dict["mark"])
        if mark is None:
            raise diskreplay.MismatchError(
                f"the checkpoint is of the store at {state_dict['path']}, and {self._buffer.path} "
                f"has no mark {state_dict['mark']!r}: use DiskReplayStorage(..., path=) with that "
                f"store, which keeps the marks of the last {_KEPT_MARKS} checkpoints"
            )
        if mark.count != self._buffer.count:
            self._buffer.rewind(mark.name)
        self._origin = mark.data["origin"]
        self._bump_mutation_revision()

    def contains(self, item: Any) -> Any:
        """Return whether there is a transition at a place, or at each place of a tensor."""
        places = _places(item, len(self))
        found = (places >= -len(self)) & (places < len(self))
        return torch.from_numpy(found) if isinstance(item, torch.Tensor) else bool(found.all())

    def flush(self) -> None:
        """Commit everything now, as `diskreplay.ReplayBuffer.flush`."""
        self._buffer.flush()

    def close(self) -> None:
        """Commit and close the store."""
        self._buffer.close()

    def __len__(self) -> int:
        return len(self._buffer)

    def __repr__(self) -> str:
        return f"DiskReplayStorage({self._buffer!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, where the storage is read."""
        return dict(Storage.__getstate__(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        Storage.__setstate__(self, state)

    # Inside

    def _empty(self) -> None:
        self._buffer.clear()
        self._origin = self._buffer.count
        self._bump_mutation_revision()

    def _extend(self, data: Any) -> None:
        """Add the transitions of a tensordict."""
        arrays = _arrays_of(data)
        if self._schema is None:
            self._open_with(schema_of({key: _kind(array) for key, array in arrays.items()}))
        expected = dict.fromkeys(self._keys.values())
        if arrays.keys() != expected.keys():
            missing, new = expected.keys() - arrays.keys(), arrays.keys() - expected.keys()
            raise diskreplay.SchemaError(
                f"{self._buffer.path} has transitions with other keys (missing: "
                f"{sorted(missing) or 'none'}; new: {sorted(new) or 'none'}): select the keys that "
                "the first transition had"
            )
        self._shapes, self._type = _batch_shapes(data), type(data) if is_tensorclass(data) else None
        n = len(data)
        fields = {
            tuple(name.split(".")): arrays[key].reshape(n) if name in SINGLE else arrays[key]
            for name, key in self._keys.items()
        }
        values = nested(fields.items())
        standard = [self._standard(name, values, n) for name in _STANDARD]
        self._buffer.extend(
            *standard, truncateds=values.pop("truncated", None), env=_envs(arrays), **values
        )

    def _standard(self, name: str, values: dict[str, Any], n: int) -> Any:
        """Take the value of a standard field; zeros where the transitions have none."""
        if name in values:
            return values.pop(name)
        schema: Any = self._schema
        return np.zeros((n, *schema[name].shape), schema[name].dtype)

    def _open_with(self, schema: diskreplay.Schema) -> None:
        """Open the store, which has no schema yet, once more with one."""
        self._buffer.close()
        arguments = {**self._arguments, "schema": schema, "if_exists": "resume"}
        self._buffer = diskreplay.ReplayBuffer(**arguments)
        self._use(schema)

    def _use(self, schema: diskreplay.Schema | None) -> None:
        self._schema, self._keys = schema, {} if schema is None else keys_of(schema)


_STANDARD = ("state", "action", "reward", "next_state", "done")


def _places(index: Any, size: int) -> Any:
    """Return places of the ring as an array, of any kind of index."""
    if isinstance(index, slice):
        return np.arange(size)[index]
    places = np.asarray(index.cpu() if isinstance(index, torch.Tensor) else index)
    if places.dtype == np.bool_:
        return np.flatnonzero(places)
    return places.astype(np.int64, casting="same_kind") if places.size else places.astype(np.int64)


def _arrays_of(data: Any) -> dict[Key, Any]:
    """Return the values of a tensordict as arrays, by key."""
    found = {}
    for key, value in data.items(True, True, is_leaf=is_leaf_nontensor):
        name = _as_key(key)
        if not isinstance(value, torch.Tensor):
            raise diskreplay.ArgumentError(
                f"the value of {name} is no tensor (found {type(value).__name__}): leave it out, "
                "or encode it as numbers"
            )
        tensor = value.detach().cpu()
        found[name] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return found


def _as_key(key: Any) -> Key:
    return key if isinstance(key, tuple) else (key,)


def _kind(column: Any) -> Kind:
    return Kind(column.dtype, column.shape[1:])


def _batch_shapes(data: Any) -> dict[Key, torch.Size]:
    """Return the shapes of nested tensordicts, and of the whole, where they have further parts."""
    shapes: dict[Key, torch.Size] = {(): data.batch_size[1:]}
    for key, value in data.items(include_nested=True):
        if is_tensor_collection(value):
            shapes[_as_key(key)] = value.batch_size[1:]
    return {key: shape for key, shape in shapes.items() if len(shape)}


def _envs(arrays: dict[Key, Any]) -> Any:
    """Return the trajectory of each transition, where collectors tell it, as its environment."""
    found = arrays.get(_TRAJECTORY)
    return found.reshape(-1) if found is not None and found.dtype.kind in "iu" else None
