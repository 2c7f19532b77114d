"""Pickling: a buffer travels to another process as its path, and is not copied in this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from diskreplay.buffer.session import is_open_here
from diskreplay.errors import LockedError, NotAStoreError


class Pickled:
    """What pickling and copying do with a buffer."""

    _path: Path
    _capacity: int
    _temporary: bool
    _window_bytes: int
    _skips_damaged: bool
    _settings: Any
    _check_open: Callable[[], None]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the arguments that open the same store for reading, in another process."""
        arguments: dict[str, Any] = {
            "capacity": self._capacity,
            "path": str(self._path),
            "access": "read",
            "window_bytes": self._window_bytes,
            "on_damage": "skip" if self._skips_damaged else "raise",
        }
        return unpickled, (type(self), arguments | self._settings, self._temporary)

    def __copy__(self) -> NoReturn:
        """Refuse: two buffers would write to one store."""
        self._check_open()
        raise LockedError(
            f"the buffer at {self._path} cannot be copied in memory, since its transitions are on "
            "disk: save() writes a store of its own, which diskreplay.open() opens; another "
            "process opens this one with access='read'"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Refuse, as `copy.copy`: what refers to a buffer is copied without it."""
        self.__copy__()


def unpickled(kind: Callable[..., Any], arguments: dict[str, Any], is_temporary: bool) -> Any:
    """Return the reader that a pickled buffer becomes."""
    path = arguments["path"]
    if is_open_here(Path(path)):
        raise LockedError(
            f"{path} is open in this process already, and a pickled buffer is for other processes: "
            "use the buffer that is open, or close it first"
        )
    try:
        return kind(**arguments)
    except NotAStoreError:
        if not is_temporary:
            raise
        raise NotAStoreError(
            f"{path} is not there any more: the pickled buffer was temporary, and removed when it "
            "was closed; give a path= to a buffer that is to last"
        ) from None
