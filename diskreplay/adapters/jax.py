"""Arrays of JAX: to_jax for one batch."""

from __future__ import annotations

from typing import Any

try:
    import jax
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ModuleNotFoundError(
        'diskreplay.adapters.jax needs jax, which is not installed: pip install "diskreplay[jax]"',
        name="jax",
    ) from None

import diskreplay

_BATCHES = (
    diskreplay.Batch,
    diskreplay.PrioritizedBatch,
    diskreplay.SequenceBatch,
    diskreplay.PrioritizedSequenceBatch,
)


def to_jax(batch: Any, device: Any = None) -> Any:
    """Return a batch with arrays of JAX in place of its arrays: a named tuple of the same type.

    Elements that are dictionaries, tuples or lists of arrays become such of JAX's. Frames are put
    together, on the device, to the values that they stand for. The `indices` stay an array of
    numpy, as `update_priorities` takes them: JAX would make them 32 bits wide, as it makes all
    numbers of 64 bits unless jax_enable_x64 is set.

    The arrays are copies, also on the CPU, so those of the batch may be used again at once. Raises
    ArgumentError for anything but a batch.

    >>> buffer = diskreplay.PrioritizedReplayBuffer(capacity=10)
    >>> buffer.push([0.0, 0.5], 1, 1.0, [1.0, 0.5], False)
    0
    >>> batch = to_jax(buffer.sample(1))
    >>> type(batch.states).__module__.partition(".")[0], batch.indices
    ('jaxlib', array([0]))

    device:  of the arrays, or a sharding, as of `jax.numpy.array`; None is JAX's default
    """
    if not isinstance(batch, _BATCHES):
        raise diskreplay.ArgumentError(
            f"expected a batch, as sample() returns it (found {type(batch).__name__})"
        )
    found: Any = batch
    indices = found.indices

    def converted(value: Any) -> Any:
        if value is indices or isinstance(value, str | bytes):
            return value
        if isinstance(value, dict):
            return {key: converted(part) for key, part in value.items()}
        if isinstance(value, tuple):
            return tuple(map(converted, value))
        if isinstance(value, list):
            return [converted(part) for part in value]
        if isinstance(value, diskreplay.Frames):
            whole = converted(value.frames)[converted(value.rows)]
            return jax.numpy.moveaxis(whole, 1, 1 + value.axis) if value.axis else whole
        # device_put shares aligned memory, even with may_alias=False, and copies other later.
        return jax.numpy.array(value, copy=True, device=device)

    made = found._make(map(converted, found))
    vars(made).update(vars(found))
    return made
