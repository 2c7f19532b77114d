"""ReadablePages: the pages of a damaged file, its trees, and its pages that are free."""

from __future__ import annotations

from collections.abc import Iterator

from diskreplay.lmdbfile import INTEGER_KEYS, DataFile, Meta, Tree, Walk


class ReadablePages:
    """The pages of a file, its trees, and its pages that are free for certain.

    knows_free:  whether it is known of each page whether it is free
    """

    def __init__(self, file: DataFile, meta: Meta | None, *, whole: bool) -> None:
        self._file = file
        self._walk = None if meta is None else Walk(file, meta)
        self._trees: dict[bytes, Tree] = {}
        self.knows_free = False
        if self._walk is not None:
            self._walk.collect_free()
            self.knows_free = whole and not self._walk.faults.count
            self._trees = self._walk.trees()

    def read(self, at: int, size: int) -> bytes:
        """Return the bytes at an offset, fewer at the end of the file."""
        return self._file.read(at, max(0, min(size, self._file.size - at)))

    def read_in_use(self, at: int, size: int) -> bytes:
        """Return the bytes at an offset, b"" if one of their pages is free for certain."""
        page_bytes = self._file.page_bytes
        first, last = at // page_bytes, (at + size - 1) // page_bytes
        return b"" if self._some_are_free(first, last) else self.read(at, size)

    def named(self, name: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        """Yield key, offset and bytes of the reached values of a tree whose keys are names."""
        if self._walk is not None and name in self._trees:
            for key, at, raw in self._walk.values(name, self._trees[name]._replace(flags=0)):
                if isinstance(key, bytes):
                    yield key, at, raw

    def numbered(self, name: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield number, offset and bytes of the reached values of a tree with integer keys."""
        if self._walk is not None and name in self._trees:
            tree = self._trees[name]._replace(flags=INTEGER_KEYS)
            yield from self._walk.numbered(name, tree)

    def pages(self, *, free: bool) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of every page, with or without those that are free for certain."""
        page_bytes = self._file.page_bytes
        for at in range(2 * page_bytes, self._file.size, page_bytes):
            number = at // page_bytes
            if free or not self._some_are_free(number, number):
                yield at, self.read(at, page_bytes)

    def _some_are_free(self, first: int, last: int) -> bool:
        walk = self._walk
        if walk is None or not self.knows_free:
            return False
        known = slice(first, last + 1)
        # Pages beyond the last one belong to a commit that did not end.
        return last >= walk.pages or bool((walk.free[known] & ~walk.disputed[known]).any())


def offsets_in_page(mark: bytes, page: bytes) -> Iterator[int]:
    """Yield the offsets of some bytes in a page."""
    at = page.find(mark)
    while at >= 0:
        yield at
        at = page.find(mark, at + 1)
