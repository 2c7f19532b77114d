"""Soundness: can the engine open a data file, and read it, without harm?"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from diskreplay.errors import DamageError, StorageError
from diskreplay.lmdbfile import DataFile, Meta, Walk, page_bytes_in
from diskreplay.store.files import DATA, StoreDirectory
from diskreplay.store.notes import Note
from diskreplay.store.os_errors import explained
from diskreplay.store.unopened import pinned
from diskreplay.wording import count_of

_META_PAGES = 2
_found_sound: list[int] = []  # what this process checked last: open() does it twice in a row


def check_data_file(path: Path) -> None:
    """Raise DamageError when the engine could not open the data file of a store without harm.

    The engine would make a new empty database of a file that is absent or empty, and end the
    process over one that is short or damaged. So the file's structure is walked, unless it is as
    diskreplay left it; nobody is trusted who has it open as well. What is walked is one commit,
    which a read transaction keeps as it is while writers go on. Those who come together take turns,
    and the first writes down that the file is sound. Cost: then it reads the file, 600
    MB a second for records of 500 bytes, 40 for records of 70.
    """
    file = path / DATA
    try:
        with StoreDirectory(path) as directory:
            descriptor = directory.open(DATA)
    except FileNotFoundError:
        raise DamageError(
            f"{file} is missing beside its manifest: restore it from a copy, or choose a new path"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot read {file}: {explained(error, path)}") from None
    data = DataFile(descriptor)
    with contextlib.closing(data), contextlib.closing(Note(path, descriptor)) as note:
        size = data.size
        if size < _META_PAGES * max(page_bytes_in(data.read(0, min(size, 512))), 512):
            raise DamageError(
                f"{file} is short: it has {count_of(size, 'byte')}, less than its first two pages: "
                "restore it from a copy, or choose a new path"
            )
        if note.is_known() or _found_sound == _likeness(descriptor):
            return
        with note.turn():
            if note.is_known():
                return
            before, likeness = os.fstat(descriptor), _likeness(descriptor)
            with pinned(path, data) as (meta, faults):
                if meta is not None and not faults:
                    faults = structural_faults(data, meta)
            if not faults:
                # Of a file that somebody wrote to meanwhile this says nothing, and it is as if it
                # were not there.
                note.write(before)
                _found_sound[:] = likeness
                return
    more = f" (and {count_of(len(faults) - 1, 'more fault')})" if len(faults) > 1 else ""
    raise DamageError(
        f"{file} is damaged: {faults[0]}{more}: restore it from a copy, or save what is "
        f"readable with diskreplay.repair({str(path)!r}, ...)"
    )


def structural_faults(data: DataFile, meta: Meta) -> list[str]:
    """Return what is wrong with the pages of a commit that nobody changes, [] if nothing."""
    walk = Walk(data, meta)
    walk.collect_free()
    for name, tree in walk.trees().items():
        walk.exhaust(name, tree)
    if not walk.faults.count:
        walk.check_all_used()
    return walk.faults.sentences()


def _likeness(descriptor: int) -> list[int]:
    found = os.fstat(descriptor)
    return [found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns]
