"""Pickling: a buffer travels to another process as its path, and is not copied in this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diskreplay.buffer.assembly import Options
from diskreplay.buffer.guard import Guard, is_open_here
from diskreplay.errors import LockedError, NotAStoreError


def pickled(kind: Callable[..., Any], options: Options, guard: Guard) -> tuple[Any, ...]:
    """Return the result of `__reduce__`: the arguments of a reader of the store."""
    arguments = {
        "capacity": options.capacity,
        "keep_rows": options.keep_rows,
        "path": str(guard.path),
        "access": "read",
        "window_bytes": options.window_bytes,
        "on_damage": options.on_damage,
        "sampler": options.sampler,
        **guard.replica.settings,
    }
    return unpickled, (kind, arguments, guard.is_temporary)


def unpickled(kind: Callable[..., Any], arguments: dict[str, Any], is_temporary: bool) -> Any:
    """Return the reader that a pickled buffer becomes."""
    path = arguments["path"]
    if is_open_here(Path(path)):
        raise LockedError(
            f"{path} is open in this process already, and a pickled buffer is for other processes: "
            "use the open buffer, or close it first"
        )
    try:
        return kind(**arguments)
    except NotAStoreError:
        if not is_temporary:
            raise
        raise NotAStoreError(
            f"{path} does not exist any more: the pickled buffer was temporary, and removed when "
            "it was closed; give the buffer a path="
        ) from None


def copy_refused(path: Path) -> LockedError:
    """Return the error of a copy in memory: two buffers would write to one store."""
    return LockedError(
        f"the buffer at {path} cannot be copied in memory, since its transitions are on "
        "disk: save() writes a store of its own, which diskreplay.open() opens; another "
        "process opens this one with access='read'"
    )
