"""The note in data.known: how the data file looked when diskreplay last wrote to it.

A file that looks as it was noted needs no check. The note is one line of a fixed length::

    when           device  inode  size  time of change     after a commit
    start of the   device  inode  size  ?digest            while a commit is under way
    machine

`when` is "-", or an id of this start of the machine, after which the note holds no more. The digest
is that of the newest meta page: a commit, and a kill in the middle of one, leaves it as it is. So a
commit that was under way is told from a file that was copied over this one, or was cut.

Only a note that this user or root wrote counts, and that nobody else could have changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from xxhash import xxh3_64_hexdigest

from diskreplay.errors import DamageError
from diskreplay.lmdbfile import last_page_of, meta_pages, newest_of, page_bytes_in
from diskreplay.store.directory import DATA, KNOWN, StoreDirectory
from diskreplay.store.waiting import wait_for

_NOTE_BYTES = 125
_MODE = 0o644  # whatever the umask grants: who may write a note may vouch for anything
_LOOKS = 200  # a check of the file takes longer than so many looks


class KnownNote:
    """The note on one data file. It is written over in place: to truncate it takes 0.5 ms on ext4.

    Where no note can be written, or only one of somebody else is there, nothing is known.
    """

    def __init__(self, path: Path, data: int, *, lasting: bool = True) -> None:
        """Take the path of a store and a descriptor of its data file, which stays the caller's.

        lasting:  whether a commit stays whole when the power fails
        """
        self._path = path
        self._data = data
        self.lasting = lasting
        self._descriptor: int | None = None

    def is_known(self) -> bool:
        """Return whether the data file is as it was noted.

        A commit may come in between, which changes the note: then both are looked at again.
        """
        for _ in range(_LOOKS):
            noted = self._read()
            metas = meta_pages(self._data)  # before the size: a writer makes the file grow first
            if noted and _vouches(noted, os.fstat(self._data), metas):
                return True
            if noted == self._read():
                return False
            time.sleep(0.001)
        return False

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Keep others from checking the data file during the block, if a note is possible."""
        descriptor = self._writable()
        try:
            if descriptor is not None:
                wait_for(descriptor, self._path, "its check")
            yield
        finally:
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Note how the file looks after the block, if it was as noted before.

        In between the note says that a commit is under way, which holds until the machine is
        started again: a killed commit damages no page of the one before, a power failure may. The
        caller holds the commit lock. Cost: about 10 microseconds.
        """
        descriptor = self._writable()
        known = False
        if descriptor is not None:
            with contextlib.suppress(OSError):
                found, metas = os.fstat(self._data), meta_pages(self._data)
                known = _vouches(os.pread(descriptor, _NOTE_BYTES, 0), found, metas)
                if known:
                    os.pwrite(descriptor, _mark(found, newest_of(metas)), 0)
        try:
            yield
        finally:
            if known:
                self.write()

    def write(self, found: os.stat_result | None = None) -> None:
        """Note how the data file looks now, or looked when it was `found`."""
        with contextlib.suppress(OSError):
            descriptor = self._writable()
            if descriptor is not None:
                when = b"-" if self.lasting else _boot()
                os.pwrite(descriptor, _likeness(found or os.fstat(self._data), when), 0)

    def close(self) -> None:
        """Close the note. Twice is once."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _read(self) -> bytes:
        """Return the note, b"" when there is none that counts."""
        with contextlib.suppress(OSError, DamageError), StoreDirectory(self._path) as directory:
            descriptor = directory.open(KNOWN)
            try:
                return os.pread(descriptor, _NOTE_BYTES, 0) if _counts(descriptor) else b""
            finally:
                os.close(descriptor)
        return b""

    def _writable(self) -> int | None:
        """Return a descriptor of a note that counts, at its place; None where there can be none."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if os.fstat(self._descriptor).st_nlink:
                    return self._descriptor
            self.close()
        with contextlib.suppress(OSError), StoreDirectory(self._path) as directory:
            with contextlib.suppress(OSError, DamageError):
                descriptor = directory.open(KNOWN, os.O_RDWR)
                try:
                    if _counts(descriptor):
                        self._descriptor = descriptor
                        return descriptor
                finally:
                    if self._descriptor is None:
                        os.close(descriptor)
            noted = self._read()  # a note of root counts, and may not be written to
            with contextlib.suppress(FileNotFoundError):
                directory.unlink(KNOWN)
            descriptor = directory.open(KNOWN, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE)
            self._descriptor = descriptor
            os.pwrite(descriptor, noted, 0)
            return descriptor
        return None


def is_known(path: Path) -> bool:
    """Return whether the data file of the store at a path is as it was noted."""
    with _note_of(path) as note:
        return note.is_known()


def make_known(path: Path) -> None:
    """Note how the data file of the store at a path looks."""
    with _note_of(path) as note:
        note.write()


@contextlib.contextmanager
def _note_of(path: Path) -> Iterator[KnownNote]:
    with StoreDirectory(path) as directory:
        data = directory.open(DATA)
    try:
        with contextlib.closing(KnownNote(path, data)) as note:
            yield note
    finally:
        os.close(data)


def _counts(descriptor: int) -> bool:
    """Return whether nobody else can have written an opened note."""
    found = os.fstat(descriptor)
    return (
        found.st_nlink == 1
        and found.st_size <= _NOTE_BYTES
        and found.st_uid in (0, os.geteuid())
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _vouches(noted: bytes, found: os.stat_result, metas: list[bytes]) -> bool:
    """Return whether a note is one of this file, and the file is as long as it says itself."""
    if found.st_size < (last_page_of(newest_of(metas)) + 1) * page_bytes_in(metas[0]):
        return False  # LMDB would end the process, whoever wrote the note
    if noted in (_likeness(found), _likeness(found, _boot())):
        return True
    parts = noted.split()
    if len(parts) != 5 or not parts[3].isdigit() or int(parts[3]) > found.st_size:
        return False
    return any(noted == _mark(found, meta, int(parts[3])) for meta in metas)


def _likeness(found: os.stat_result, when: bytes = b"-") -> bytes:
    """Return the note of a file: it changes whenever the file is written to, or is another."""
    numbers = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    return b"%-40s %20d %20d %20d %20d\n" % (when, *numbers)  # of 125 bytes for any numbers


def _mark(found: os.stat_result, meta: bytes, size: int | None = None) -> bytes:
    """Return the note of a commit under way: of what stays as it is meanwhile, or grows."""
    digest = b"?" + xxh3_64_hexdigest(meta).encode()
    numbers = (found.st_dev, found.st_ino, found.st_size if size is None else size)
    return b"%-40s %20d %20d %20d %20s\n" % (_boot(), *numbers, digest)


@functools.cache
def _boot() -> bytes:
    """Return an id of this start of the machine; where that is unknown, of the process."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    return os.urandom(16).hex().encode()
