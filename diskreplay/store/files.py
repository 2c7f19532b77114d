"""StoreDirectory: the opened directory of a store, below which no link is followed.

The path itself may be a link. What stands in the directory is reached relative to its descriptor,
by its own name only, so that a link that somebody put there leads nowhere.
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
HIDDEN = ".diskreplay-"  # the names of directories that something is built in begin with it


class StoreDirectory:
    """An opened directory. Its methods raise OSError, as those of `os` do, where nothing is said.

    Use it in a `with` block, or close it.
    """

    def __init__(self, path: Path, inside: StoreDirectory | None = None) -> None:
        """Open the directory at a path, or the one of that name inside of another one."""
        flags = os.O_RDONLY | os.O_DIRECTORY
        if inside is None:
            self.path = path
            self._descriptor = os.open(path, flags)
        else:
            self.path = inside.path / path
            self._descriptor = os.open(path, flags | os.O_NOFOLLOW, dir_fd=inside._descriptor)

    def close(self) -> None:
        """Give the descriptor back. Twice is once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def names(self) -> list[str]:
        """Return the names of all that is in it, sorted."""
        return sorted(os.listdir(self._descriptor))

    def status(self, name: str) -> os.stat_result:
        """Return what the system says of a name; of a link, what it says of the link."""
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)

    def open(self, name: str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """Return a descriptor of a regular file; a pipe is not waited for.

        The lock file of the engine must not be opened while this process has the engine open: to
        close any descriptor of it gives up the engine's own locks.
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
        """Return what is in a file; raise DamageError, without reading it all, beyond a limit."""
        descriptor = self.open(name)
        try:
            found = os.pread(descriptor, limit + 1, 0)
        finally:
            os.close(descriptor)
        if len(found) > limit:
            raise DamageError(f"{self.path / name} has more than {limit} bytes: it is damaged")
        return found

    def inside(self, name: str) -> StoreDirectory:
        """Open the directory of a name in it."""
        return StoreDirectory(Path(name), self)

    def make_directory(self, name: str) -> None:
        """Make a directory in it."""
        os.mkdir(name, dir_fd=self._descriptor)

    def unlink(self, name: str) -> None:
        """Remove a name; of a link, the link."""
        os.unlink(name, dir_fd=self._descriptor)

    def move(self, name: str, other: StoreDirectory) -> None:
        """Move a name to another directory, over what has that name there."""
        os.rename(name, name, src_dir_fd=self._descriptor, dst_dir_fd=other._descriptor)

    def own(self, name: str, user: int, group: int) -> None:
        """Change whom a file belongs to; -1 leaves it."""
        os.chown(name, user, group, dir_fd=self._descriptor, follow_symlinks=False)

    def permit(self, name: str, mode: int) -> None:
        """Change the mode of a file that is not a link."""
        descriptor = self.open(name)
        try:
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a directory in it, as far as that can be done, with all that is in that."""
        if stat.S_ISDIR(self.status(name).st_mode):
            # It opens each directory on the way without following links, as we do.
            shutil.rmtree(self.path / name, ignore_errors=True)
