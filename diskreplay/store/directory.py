"""StoreDirectory: the opened directory of a store, below which no link is followed.

::

    PATH/
      diskreplay.json       the manifest, see manifest.py
      data.mdb  lock.mdb    the LMDB environment
      data.known            how data.mdb looked after the last commit, see known_note.py
      *.lock  openers/      who has the store open, see locks.py and openers.py

The path itself may be a link. Everything in the directory is reached by its own name, relative to
the directory's descriptor, so that a link that somebody put there leads nowhere.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from diskreplay.errors import DamageError

if TYPE_CHECKING:
    from typing_extensions import Self

MANIFEST = "diskreplay.json"
DATA = "data.mdb"
LOCK = "lock.mdb"
KNOWN = "data.known"
OPENERS_LOCK = "openers.lock"
WRITER_LOCK = "writer.lock"
OPENERS = "openers"
FILES = (MANIFEST, DATA, LOCK, KNOWN, OPENERS_LOCK, WRITER_LOCK)
HIDDEN = ".diskreplay-"  # the first part of the names of directories to build in


class StoreDirectory:
    """An opened directory, for a `with` block. Its methods raise OSError as those of `os` do."""

    def __init__(self, path: Path, inside: StoreDirectory | None = None) -> None:
        """Open the directory at a path, or the directory of that name inside another one."""
        flags = os.O_RDONLY | os.O_DIRECTORY
        if inside is None:
            self.path = path
            self._descriptor = os.open(path, flags)
        else:
            self.path = inside.path / path
            self._descriptor = os.open(path, flags | os.O_NOFOLLOW, dir_fd=inside._descriptor)

    def close(self) -> None:
        """Close the descriptor. Twice is once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def names(self) -> list[str]:
        """Return the names of its entries, sorted."""
        return sorted(os.listdir(self._descriptor))

    def status(self, name: str) -> os.stat_result:
        """Return the status of an entry; of a link, that of the link."""
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)

    def open(self, name: str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """Return a descriptor of a regular file; a pipe is not waited for.

        The lock file of LMDB must not be opened while this process has LMDB open: to close any
        descriptor of it gives up LMDB's own locks.
        """
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(name, flags, mode, dir_fd=self._descriptor)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DamageError(f"{self.path / name} is not a file")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def read_small(self, name: str, limit: int) -> bytes:
        """Return the content of a file; raise DamageError, without reading all, beyond a limit."""
        descriptor = self.open(name)
        try:
            found = os.pread(descriptor, limit + 1, 0)
        finally:
            os.close(descriptor)
        if len(found) > limit:
            raise DamageError(f"{self.path / name} has more than {limit} bytes: it is damaged")
        return found

    def inside(self, name: str) -> StoreDirectory:
        """Open a directory in it."""
        return StoreDirectory(Path(name), self)

    def make_directory(self, name: str) -> None:
        """Make a directory in it."""
        os.mkdir(name, dir_fd=self._descriptor)

    def unlink(self, name: str) -> None:
        """Remove an entry; of a link, the link."""
        os.unlink(name, dir_fd=self._descriptor)

    def move(self, name: str, other: StoreDirectory) -> None:
        """Move an entry to another directory, over the entry of that name there."""
        os.rename(name, name, src_dir_fd=self._descriptor, dst_dir_fd=other._descriptor)

    def own(self, name: str, user: int, group: int) -> None:
        """Change the owner and the group of a file; -1 leaves either."""
        os.chown(name, user, group, dir_fd=self._descriptor, follow_symlinks=False)

    def permit(self, name: str, mode: int) -> None:
        """Change the mode of a file that is not a link."""
        descriptor = self.open(name)
        try:
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a directory in it with everything below, as far as that can be done."""
        if stat.S_ISDIR(self.status(name).st_mode):
            # rmtree opens each directory on the way without following links, too.
            shutil.rmtree(self.path / name, ignore_errors=True)
