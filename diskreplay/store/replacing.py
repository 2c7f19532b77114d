"""Replacing: a whole new store in the place of another one, in one step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from diskreplay.errors import NotAStoreError, StorageError
from diskreplay.store.creation import check_outside, exchange, work_directory
from diskreplay.store.directory import is_of_store
from diskreplay.store.files import MANIFEST
from diskreplay.store.locks import ALONE, Hold
from diskreplay.store.os_errors import real_path, refusals


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to make a store at; at the end of the block it takes the place of that at `path`.

    The old store stays whole until then, also when the block raises or is killed, and is removed
    afterwards. Raises LockedError while anyone has it open, and NotAStoreError for a directory that
    is no store, or holds other files that would be removed with it.
    """
    target = real_path(path)  # a link stays, and leads to the new store
    with refusals(f"cannot replace the store at {path}", path):
        if not (target / MANIFEST).is_file():
            raise NotAStoreError(f"{path} is not a store, so it is not replaced: choose another")
        others = sorted(entry.name for entry in target.iterdir() if not is_of_store(entry.name))
        if others:
            names = ", ".join(others[:3]) + " ..." * (len(others) > 3)
            raise NotAStoreError(
                f"{path} holds {names} beside the store, which would be removed, too: move that, "
                "or choose another path"
            )
        hold = Hold(target, ALONE)
        try:
            check_outside(target)
            with work_directory(target.parent) as hidden:
                try:
                    yield hidden / "store"
                except StorageError as error:
                    told = str(error).replace(str(hidden / "store"), str(path))
                    raise StorageError(told) from None
                exchange(hidden / "store", target)
        finally:
            hold.release()
