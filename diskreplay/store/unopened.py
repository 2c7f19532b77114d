"""Reading: a store held and looked at without a buffer, as far as it is there at all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from diskreplay.errors import DamageError, StorageError
from diskreplay.lmdbfile import DataFile, Faults, Meta
from diskreplay.store.admission import check_layout
from diskreplay.store.directory import check_kinds, check_store, read_manifest
from diskreplay.store.engine import errors_of, open_env
from diskreplay.store.files import DATA, StoreDirectory
from diskreplay.store.locks import Hold
from diskreplay.store.os_errors import explained

_TRIES = 100


@contextlib.contextmanager
def reading(path: Path, faults: Faults) -> Iterator[tuple[DataFile | None, str | None]]:
    """Hold a store, and give its data file and the uuid of its manifest, as far as they are there.

    Raises as `repair` does.
    """
    check_store(path)
    uuid = None
    try:
        check_kinds(path)
    except DamageError as error:
        faults.add(str(error))
        yield None, None
        return
    try:
        uuid = read_manifest(path).uuid
    except DamageError as error:
        faults.add(str(error))
    check_layout(path)
    hold = None
    try:
        hold = Hold(path, "read")
    except DamageError as error:
        faults.add(str(error))
    try:
        file = _data_file(path, faults)
        try:
            yield file, uuid
        finally:
            if file is not None:
                file.close()
    finally:
        if hold is not None:
            hold.release()


@contextlib.contextmanager
def pinned(path: Path, file: DataFile) -> Iterator[tuple[Meta | None, list[str]]]:
    """Give the newest meta page and what is wrong with both.

    When nothing is, a read transaction keeps writers off the pages that it refers to until the
    end of the block. To open the engine is safe then: it looks at the meta pages only.
    """
    metas, faults = file.metas()
    for _ in range(5):  # one that is read while it is written may be half of each
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
        for _ in range(_TRIES):
            txn = env.begin()
            try:
                metas, faults = file.metas()
                found = [meta for meta in metas if meta.transaction == txn.id()]
                if found:
                    yield found[0], faults
                    return
            finally:
                txn.abort()
                del txn  # it holds its place among the readers until it is gone
    finally:
        env.close()
    yield (
        (metas[0] if metas else None),
        ["lock.mdb does not belong to it: another file was put in its place"],
    )


def _data_file(path: Path, faults: Faults) -> DataFile | None:
    try:
        with StoreDirectory(path) as directory:
            return DataFile(directory.open(DATA))
    except FileNotFoundError:
        faults.add(f"{DATA} is missing beside its manifest")
    except DamageError as error:
        faults.add(str(error))
    except OSError as error:
        raise StorageError(f"cannot read {path / DATA}: {explained(error, path)}") from None
    return None
