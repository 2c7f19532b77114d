"""Walk: read the trees of a data file page by page, and collect all faults."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np

from diskreplay.errors import DamageError, printable
from diskreplay.lmdbfile.pages import (
    BRANCH,
    HEADER,
    IN_OVERFLOW,
    INTEGER_KEYS,
    IS_TREE,
    LEAF,
    NO_PAGE,
    NUMBER,
    OVERFLOW,
    PAGE_HEADER,
    TREE_RECORD,
    DataFile,
    Meta,
    Node,
    Tree,
    Value,
    nodes_of,
    sort_key,
    tree_at,
)
from diskreplay.wording import count_of

FREE, MAIN = b"free pages", b"main"
_MAX_DEPTH = 32
_LEAST_SLACK = 1 << 20  # pages counted beyond the end of a file: freed before they were written
_FAULTS_KEPT = 1000
_Key = int | bytes | None


class Faults:
    """Sentences about faults: the first thousand, and the number of all faults."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self.count = 0

    def add(self, sentence: str) -> None:
        """Add one fault."""
        self.count += 1
        if self.count <= _FAULTS_KEPT:
            self._kept.append(printable(sentence))

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Add a DamageError of the block, and go on after the block."""
        try:
            yield
        except DamageError as error:
            self.add(str(error))

    def sentences(self) -> list[str]:
        """Return the sentences, the last of which counts those left out."""
        more = self.count - len(self._kept)
        return [*self._kept, *([f"and {count_of(more, 'more fault')}"] if more else [])]


class Walk:
    """One walk over the trees that a meta page names.

    The walk yields every value in its right place, and collects all faults. Each page belongs to
    one tree, so a page is read once. Cost: reads each page in use. Memory: 3 bytes a page.
    """

    def __init__(self, file: DataFile, meta: Meta, faults: Faults | None = None) -> None:
        self.file = file
        self.meta = meta
        self.faults = Faults() if faults is None else faults
        self.pages = meta.last_page + 1
        there = file.size // file.page_bytes
        if self.pages > there + max(there, _LEAST_SLACK):
            self.faults.add(
                f"meta page {meta.transaction % 2} counts {self.pages} pages, of which the file "
                f"holds {there}"
            )
            self.pages = there
        self.reached = np.zeros(self.pages, np.bool_)
        self.free = np.zeros(self.pages, np.bool_)
        self.disputed = np.zeros(self.pages, np.bool_)  # listed as free, and in a tree

    def collect_free(self) -> None:
        """Collect the free pages. Call this first: a tree must not use a free page."""
        for transaction, _, content in self.values(FREE, self.meta.free):
            if not isinstance(transaction, int) or not 1 <= transaction <= self.meta.transaction:
                self.faults.add(f"free pages are listed under transaction {transaction!r}")
                continue
            if len(content) % 8 or len(content) < 8:
                self.faults.add(f"the list of free pages of transaction {transaction} is cut off")
                continue
            length, *_ = NUMBER.unpack_from(content)
            numbers = np.frombuffer(content, np.uint64)[1:]
            known = numbers[(numbers >= 2) & (numbers < self.pages)].astype(np.int64)
            descending = bool((numbers[1:] < numbers[:-1]).all())
            twice = bool((self.free[known] | self.reached[known]).any())
            if length != numbers.size or known.size != numbers.size or not descending or twice:
                self.faults.add(
                    f"the list of free pages of transaction {transaction} holds other numbers"
                )
            self.free[known] = True

    def trees(self) -> dict[bytes, Tree]:
        """Return the named trees."""
        found: dict[bytes, Tree] = {}
        for name, _, content in self.values(MAIN, self.meta.main):
            if isinstance(name, bytes) and len(content) == TREE_RECORD.size:
                found[name] = tree_at(content)
            else:
                self.faults.add(f"the tree {_key_text(name)} has no description")
        return found

    def exhaust(self, name: bytes, tree: Tree) -> None:
        """Walk a tree to collect its faults, without using its values."""
        for _ in self.values(name, tree):
            pass

    def numbered(self, name: bytes, tree: Tree) -> Iterator[tuple[int, int, bytes]]:
        """Yield the values of a tree whose keys are numbers."""
        for key, at, content in self.values(name, tree):
            if isinstance(key, int):
                yield key, at, content

    def values(self, name: bytes, tree: Tree) -> Iterator[Value]:
        """Yield the values of a tree in the order of its keys.

        A page in a wrong place or of a wrong kind is left out as a whole; in the other pages, each
        value whose key is outside the range of its branch.
        """
        tree_name = name.decode("ascii", "replace")
        counted = {"branch pages": 0, "leaf pages": 0, "overflow pages": 0, "entries": 0}
        declared = (tree.branches, tree.leaves, tree.overflows, tree.entries)
        before = self.faults.count
        last: _Key = None
        stack: list[tuple[int, int, _Key, _Key]] = []
        if tree.root != NO_PAGE:
            stack.append((tree.root, 1, None, None))
        elif tree.depth:
            self.faults.add(f"{tree_name}: it is empty, but {tree.depth} pages deep")
        while stack:
            number, depth, low, high = stack.pop()
            taken = self._read_page(tree_name, number, depth, tree.depth)
            if taken is None:
                continue
            page, is_leaf = taken
            nodes, wrong = nodes_of(page, leaf=is_leaf)
            for fault in wrong:
                self.faults.add(f"{tree_name}: page {number} is damaged: {fault}")
            if not is_leaf:
                counted["branch pages"] += 1
                stack.extend(self._children(tree_name, number, nodes, tree.flags, depth, low, high))
                continue
            counted["leaf pages"] += 1
            if not nodes:
                self.faults.add(f"{tree_name}: page {number} is damaged: it is empty")
            for node in nodes:
                key = sort_key(node.key, tree.flags)
                wrong_key = self._wrong_key(node.key, key, tree.flags, low, last, high)
                if wrong_key:
                    self.faults.add(f"{tree_name}: page {number} at {node.at}: {wrong_key}")
                    continue
                last = key
                counted["entries"] += 1
                if node.flags & ~IN_OVERFLOW != (IS_TREE if name == MAIN else 0):
                    self.faults.add(
                        f"{tree_name}: page {number} at {node.at}: a value with the flags "
                        f"{node.flags:#x}"
                    )
                    continue
                size = node.low | node.high << 16
                if not node.flags & IN_OVERFLOW:
                    at = node.value_at
                    yield Value(key, number * len(page) + at, page[at : at + size])
                    continue
                (big,) = NUMBER.unpack_from(page, node.value_at)
                pages = (HEADER - 1 + size) // len(page) + 1
                counted["overflow pages"] += pages
                content = self._read_overflow(
                    f"{tree_name}: page {number} at {node.at}", big, pages, size
                )
                if content is not None:
                    yield Value(key, big * len(page) + HEADER, content)
        if self.faults.count == before:
            for (counter, found), expected in zip(counted.items(), declared, strict=True):
                if found != expected:
                    self.faults.add(f"{tree_name}: it has {found} {counter} (expected {expected})")

    def check_all_used(self) -> None:
        """Add a fault for pages that are neither in a tree nor free; walk all trees before."""
        unused = np.flatnonzero(~(self.reached | self.free)[2:]) + 2
        if unused.size:
            self.faults.add(
                f"neither in use nor free: {count_of(unused.size, 'page')} (the first: {unused[0]})"
            )

    def _read_page(
        self, tree_name: str, number: int, depth: int, deepest: int
    ) -> tuple[bytes, bool] | None:
        """Return a page and whether it is a leaf; None, with a fault, for a wrong page."""
        page = self._mark_reached(tree_name, number, 1) and self.file.page(number)
        if not page:
            if page == b"":
                self.faults.add(f"{tree_name}: page {number} is missing: the file ends before it")
            return None
        found, _, flags, _, _ = PAGE_HEADER.unpack_from(page, 0)
        if found != number or flags not in (BRANCH, LEAF):
            self.faults.add(
                f"{tree_name}: page {number} is damaged: it says it is page {found} with the flags "
                f"{flags:#x}"
            )
        elif depth <= _MAX_DEPTH:
            if (flags == LEAF) != (depth == deepest):
                self.faults.add(f"{tree_name}: page {number} is at depth {depth} of {deepest}")
            return page, flags == LEAF
        else:
            self.faults.add(f"{tree_name}: page {number} is more than {_MAX_DEPTH} pages deep")
        self.reached[number] = False
        return None

    def _read_overflow(self, where: str, number: int, pages: int, size: int) -> bytes | None:
        """Return the content of overflow pages; None, with a fault, for wrong pages."""
        if not self._mark_reached(where, number, pages):
            return None
        at = number * self.file.page_bytes
        raw = self.file.read(at, HEADER + size)
        if not raw:
            self.faults.add(f"{where}: page {number} is missing: the file ends before it")
            return None
        found, _, flags, low, high = PAGE_HEADER.unpack_from(raw, 0)
        length = low | high << 16 if sys.byteorder == "little" else low << 16 | high
        if found != number or flags != OVERFLOW or length != pages:
            self.faults.add(
                f"{where}: page {number} is damaged: it says it is page {found} with the flags "
                f"{flags:#x} and {length} pages (expected {pages})"
            )
            self.reached[number : number + pages] = False
            return None
        return raw[HEADER:]

    def _wrong_key(
        self, raw: bytes, key: int | bytes, flags: int, low: _Key, last: _Key, high: _Key
    ) -> str:
        """Return the fault of a key of a leaf, "" for a right key."""
        if not raw or (flags & INTEGER_KEYS and len(raw) != 8):
            return f"a key of {count_of(len(raw), 'byte')}"
        if (
            (low is not None and key < low)  # type: ignore[operator]
            or (high is not None and key >= high)  # type: ignore[operator]
            or (last is not None and key <= last)  # type: ignore[operator]
        ):
            return f"the key {_key_text(key)} is not in its place"
        return ""

    def _mark_reached(self, tree_name: str, number: int, pages: int) -> bool:
        end = number + pages
        if number < 2 or end > self.pages:
            self.faults.add(f"{tree_name}: it refers to page {number} of {self.pages}")
        elif self.reached[number:end].any() or self.free[number:end].any():
            self.faults.add(f"{tree_name}: page {number} is in use twice, or free")
            self.disputed[number:end] |= self.free[number:end]
        else:
            self.reached[number:end] = True
            return True
        return False

    def _children(
        self,
        tree_name: str,
        number: int,
        nodes: list[Node],
        flags: int,
        depth: int,
        low: _Key,
        high: _Key,
    ) -> list[tuple[int, int, _Key, _Key]]:
        """Return the children of a branch page, the last one first."""
        least = (
            1 if tree_name == FREE.decode() else 2
        )  # LMDB ends the process over a page with fewer
        if len(nodes) < least:
            self.faults.add(f"{tree_name}: page {number} is damaged: it has {len(nodes)} branches")
        found: list[tuple[int, int, _Key, _Key]] = []
        ends = [low, *(sort_key(node.key, flags) for node in nodes[1:]), high]
        for index, node in enumerate(nodes):
            child = node.low | node.high << 16 | node.flags << 32
            here, after = ends[index], ends[index + 1]
            sized = index == 0 or not flags & INTEGER_KEYS or len(node.key) == 8
            ordered = here is None or after is None or here < after  # type: ignore[operator]
            if not sized or not ordered:
                self.faults.add(
                    f"{tree_name}: page {number} is damaged: branch {index} is not in its place"
                )
            found.append((child, depth + 1, here, after))
        return found[::-1]


def _key_text(key: int | bytes) -> str:
    return str(key) if isinstance(key, int) else ascii(key[:40])
