"""Trust: whether a store can be read by this version, and by LMDB without harm.

LMDB makes a new empty database of a data file that is absent or empty, and ends the process over
one that is short or damaged. So a data file is looked at with plain reads first.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from diskreplay.errors import DamageError, StorageError
from diskreplay.lmdbfile import DataFile, Faults, Meta, Walk, page_bytes_in
from diskreplay.records import layout_of, unseal
from diskreplay.store.directory import DATA, StoreDirectory
from diskreplay.store.engine import open_env
from diskreplay.store.environment import errors_of
from diskreplay.store.known_note import KnownNote
from diskreplay.store.locks import StoreLocks
from diskreplay.store.manifest import check_entries, check_store, read_manifest
from diskreplay.store.os_errors import explained
from diskreplay.wording import count_of

_META_PAGES = 2
_META_TRIES = 5
_PIN_TRIES = 100
# The file that this process found sound last: it is not walked again where no note can be written.
_found_sound: list[int] = []


def check_layout(path: Path) -> None:
    """Raise FormatVersionError where the layout in the data file needs a newer version.

    The manifest says so, too, but either may be a copy. It is read without LMDB, which writes to
    its lock file, and a file that cannot be read is left to others. Cost: a few pages.
    """
    with contextlib.suppress(OSError, DamageError):
        with StoreDirectory(path) as directory:
            data = DataFile(directory.open(DATA))
        with contextlib.closing(data):
            metas, _ = data.metas()
            if metas:
                walk = Walk(data, metas[0])
                tree = walk.trees().get(b"meta")
                for key, _, raw in walk.values(b"meta", tree) if tree else ():
                    if key == b"layout":
                        layout_of(unseal(raw, "layout", "the layout"), str(path))


def check_data_file(path: Path) -> None:
    """Raise DamageError when LMDB could not open the data file of a store without harm.

    The file's structure is walked, unless it is as diskreplay left it; nobody is trusted for having
    it open as well. The walk goes over one commit, which a read transaction keeps as it is while
    writers go on. Processes that open a store together take turns, and the first writes down that
    the file is sound. Cost of a walk: it reads the file, 600 MB a second for records of 500 bytes,
    40 for records of 70.
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
    with contextlib.closing(data), contextlib.closing(KnownNote(path, descriptor)) as note:
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
            with pinned_commit(path, data) as (meta, faults):
                if meta is not None and not faults:
                    faults = structural_faults(data, meta)
            if not faults:
                # The note on a file that somebody wrote to meanwhile does not fit it any more.
                note.write(before)
                _found_sound[:] = likeness
                return
    more = f" (and {count_of(len(faults) - 1, 'more fault')})" if len(faults) > 1 else ""
    raise DamageError(
        f"{file} is damaged: {faults[0]}{more}: restore it from a copy, or save what is "
        f"readable with diskreplay.repair({str(path)!r}, ...)"
    )


def structural_faults(data: DataFile, meta: Meta) -> list[str]:
    """Return the faults of the pages of a commit that nobody changes, [] if there are none."""
    walk = Walk(data, meta)
    walk.collect_free()
    for name, tree in walk.trees().items():
        walk.exhaust(name, tree)
    if not walk.faults.count:
        walk.check_all_used()
    return walk.faults.sentences()


@contextlib.contextmanager
def pinned_commit(path: Path, file: DataFile) -> Iterator[tuple[Meta | None, list[str]]]:
    """Yield the newest meta page, and the faults of both meta pages.

    Where there are none, a read transaction keeps writers off the pages of that commit until the
    end of the block. To open LMDB is safe then: it looks at the meta pages only.
    """
    metas, faults = file.metas()
    for _ in range(_META_TRIES):  # a page that is read while it is written may be half of each
        if len(metas) == 2 and not faults:
            break
        time.sleep(0.001)
        metas, faults = file.metas()
    if faults:
        yield (metas[0] if metas else None), faults
        return
    with errors_of(path):
        env = open_env(path, False, {})
    try:
        for _ in range(_PIN_TRIES):
            txn = env.begin()
            try:
                metas, faults = file.metas()
                found = [meta for meta in metas if meta.transaction == txn.id()]
                # Others may have committed between the reads of the two pages: read both again.
                if found and not faults:
                    yield found[0], []
                    return
            finally:
                txn.abort()
                del txn  # it holds its slot among the readers until it is gone
    finally:
        env.close()
    yield (
        (metas[0] if metas else None),
        faults or ["lock.mdb does not belong to it: another file was put in its place"],
    )


@contextlib.contextmanager
def held_data_file(path: Path, faults: Faults) -> Iterator[tuple[DataFile | None, str | None]]:
    """Hold a store without opening it; give its data file and the uuid of its manifest.

    Each is None where it is damaged or missing, which is added to `faults`. Raises as `repair`
    does.
    """
    check_store(path)
    uuid = file = None
    try:
        check_entries(path)
    except DamageError as error:
        faults.add(str(error))
        yield None, None
        return
    with _added_to(faults):
        uuid = read_manifest(path).uuid
    check_layout(path)
    with contextlib.ExitStack() as stack:
        with _added_to(faults):
            stack.callback(StoreLocks(path, "read").release)
        with _added_to(faults):
            file = _data_file(path)
            stack.callback(file.close)
        yield file, uuid


def _data_file(path: Path) -> DataFile:
    try:
        with StoreDirectory(path) as directory:
            return DataFile(directory.open(DATA))
    except FileNotFoundError:
        raise DamageError(f"{DATA} is missing beside its manifest") from None
    except OSError as error:
        raise StorageError(f"cannot read {path / DATA}: {explained(error, path)}") from None


@contextlib.contextmanager
def _added_to(faults: Faults) -> Iterator[None]:
    """Add the damage that is met in the block to the faults."""
    try:
        yield
    except DamageError as error:
        faults.add(str(error))


def _likeness(descriptor: int) -> list[int]:
    found = os.fstat(descriptor)
    return [found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns]
