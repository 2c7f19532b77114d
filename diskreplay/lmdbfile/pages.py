"""Pages: the data file of LMDB 0.9, read without LMDB, which ends the process over damage.

A file is an array of pages; the first two are meta pages, and the one with the larger transaction
id says where the trees begin. Numbers are in the byte order of the machine::

    page     0 number u64   8 pad u16   10 flags u16   12 lower u16   14 upper u16   16 ...
             flags: 1 branch, 2 leaf, 4 overflow (then 12 is the length in pages, u32), 8 meta
    meta     16 magic u32   20 version u32   24 address u64   32 map size u64
             40 tree of free pages   88 main tree   136 last page u64   144 transaction u64
    tree     0 pad u32 (of the free pages: the page size)   4 flags u16   6 depth u16
             8 branch pages   16 leaf pages   24 overflow pages   32 entries   40 root, all u64
    branch,  16 offsets of the nodes, u16, ascending by key, up to `lower`
    leaf     upper ... nodes, without a gap up to the end of the page, each at an even offset
    node     0 low u16   2 high u16   4 flags u16   6 length of the key u16   8 key, value
             branch: child = low | high << 16 | flags << 32, which has the keys from this one on
             leaf: length of the value = low | high << 16; flags: 1 the value is the number of an
             overflow page, u64, and stands behind that page's first 16 bytes; 2 it is a tree

The main tree holds the named trees. A page number belongs to one tree, or to the free ones: lists
of u64 by the transaction that freed them, a length and numbers in descending order.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

HEADER = 16
NO_PAGE = 2**64 - 1
INTEGER_KEYS = 0x08
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
IN_OVERFLOW, IS_TREE = 1, 2
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_META_BYTES = 152
_FREE_TREE_AT, _MAIN_TREE_AT, _LAST_PAGE_AT, _TRANSACTION_AT = 40, 88, 136, 144
_MAX_KEY = 511
PAGE_HEADER = struct.Struct("=QHHHH")
_META_FACTS = struct.Struct("=IIQQ")
_NODE = struct.Struct("=HHHH")
NUMBER = struct.Struct("=Q")
TREE_RECORD = struct.Struct("=IHHQQQQQ")


class Tree(NamedTuple):
    """The description of one tree in the file."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class Meta(NamedTuple):
    """The content of a meta page."""

    page: int
    flags: int
    magic: int
    version: int
    address: int
    map_bytes: int
    free: Tree
    main: Tree
    last_page: int
    transaction: int

    @property
    def page_bytes(self) -> int:
        """The length of a page."""
        return self.free.pad

    def faults(self, number: int) -> list[str]:
        """Return the faults of the meta page of this number."""
        size = self.page_bytes
        wrong = {
            f"says it is page {self.page}": self.page != number,
            f"has the flags {self.flags:#x}": self.flags != META,
            "does not begin like one": self.magic != _MAGIC,
            f"is of version {self.version}": self.version != _VERSION,
            f"has a fixed address {self.address:#x}": self.address != 0,
            f"has pages of {size} bytes": size & (size - 1) or not 512 <= size <= 1 << 15,
            f"has an impossible map size {self.map_bytes}": self.map_bytes & (self.map_bytes - 1)
            or not 1 << 20 <= self.map_bytes <= 1 << 47
            or self.map_bytes < (self.last_page + 1) * size,
            f"has a wrong transaction number {self.transaction}": self.transaction % 2 != number,
            f"says the last page is {self.last_page}": self.last_page < 1,
            f"has free pages with the flags {self.free.flags:#x}": self.free.flags != INTEGER_KEYS,
            f"has a main tree with the flags {self.main.flags:#x}": self.main.flags != 0,
            f"has a main tree with a pad of {self.main.pad}": self.main.pad != 0,
        }
        return [f"meta page {number} {fault}" for fault, is_wrong in wrong.items() if is_wrong]


class DataFile:
    """A data file, read with plain reads: they fail where a map would end the process.

    descriptor:  of the open file; `close` closes it
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.page_bytes = 4096

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @property
    def size(self) -> int:
        """The length of the file now, in bytes."""
        return os.fstat(self._descriptor).st_size

    def read(self, at: int, n: int) -> bytes:
        """Return n bytes from an offset on, or b"" if not all of them can be read."""
        if at + n > self.size:
            return b""
        try:
            parts = [os.pread(self._descriptor, n, at)]
            while parts[-1] and (left := n - sum(map(len, parts))):
                parts.append(os.pread(self._descriptor, left, at + n - left))
        except OSError:  # a bad sector
            return b""
        found = b"".join(parts)
        return found if len(found) == n else b""

    def page(self, number: int) -> bytes:
        """Return a page, or b"" if it cannot be read."""
        return self.read(number * self.page_bytes, self.page_bytes)

    def metas(self) -> tuple[list[Meta], list[str]]:
        """Return the sound meta pages, the newest first, and the faults of both.

        The first page says where the second begins; if it is damaged, all page sizes are tried.
        """
        first = self._meta(0)
        sizes = [1 << n for n in (12, 14, 13, 15, 11, 10, 9)]
        if first and not first.faults(0):
            sizes = [first.page_bytes]
        second = None
        for size in sizes:
            found = self._meta(size)
            if found and found.page_bytes == size and (second is None or not found.faults(1)):
                second = found
                if not found.faults(1):
                    break
        good: list[Meta] = []
        faults: list[str] = []
        for number, meta in enumerate((first, second)):
            wrong = [f"meta page {number} cannot be found"] if not meta else meta.faults(number)
            faults += wrong
            if meta and not wrong:
                good.append(meta)
        good.sort(key=lambda meta: -meta.transaction)
        if len(good) == 2:
            new, old = good
            if new.transaction - old.transaction != 1:
                faults.append(
                    f"the meta pages are of the transactions {new.transaction} and "
                    f"{old.transaction}, which do not follow each other"
                )
            elif old.last_page > new.last_page:
                faults.append("the last page of the older meta page is behind that of the newer")
        if good:
            self.page_bytes = good[0].page_bytes
        return good, faults

    def _meta(self, at: int) -> Meta | None:
        raw = self.read(at, _META_BYTES)
        if not raw:
            return None
        page, _, flags, _, _ = PAGE_HEADER.unpack_from(raw, 0)
        magic, version, address, map_bytes = _META_FACTS.unpack_from(raw, 16)
        last_page, transaction = struct.unpack_from("=QQ", raw, _LAST_PAGE_AT)
        free, main = tree_at(raw, _FREE_TREE_AT), tree_at(raw, _MAIN_TREE_AT)
        return Meta(
            page, flags, magic, version, address, map_bytes, free, main, last_page, transaction
        )


def page_bytes_in(meta: bytes) -> int:
    """Return the page size of a data file from the bytes of its first page."""
    # The first number of the tree of free pages, see the top of this file.
    return int.from_bytes(meta[_FREE_TREE_AT : _FREE_TREE_AT + 4], sys.byteorder)


def meta_pages(descriptor: int) -> list[bytes]:
    """Return the bytes of both meta pages of an opened data file. Cost: about a microsecond."""
    first = os.pread(descriptor, _META_BYTES, 0)
    return [first, os.pread(descriptor, _META_BYTES, page_bytes_in(first))]


def newest_of(metas: list[bytes]) -> bytes:
    """Return the meta page of the larger transaction."""
    return max(metas, key=transaction_of)


def transaction_of(meta: bytes) -> int:
    """Return the number of the transaction that wrote a meta page."""
    return int.from_bytes(meta[_TRANSACTION_AT:], sys.byteorder)


def last_page_of(meta: bytes) -> int:
    """Return the number of the last page that the transaction of a meta page has used."""
    return int.from_bytes(meta[_LAST_PAGE_AT:_TRANSACTION_AT], sys.byteorder)


class Node(NamedTuple):
    """A node of a page: its offset, its flags and length as stored, and its key."""

    at: int
    low: int
    high: int
    flags: int
    key: bytes

    @property
    def value_at(self) -> int:
        """The offset of the value in the page."""
        return self.at + 8 + len(self.key)


class Value(NamedTuple):
    """A value of a tree: its key, its offset in the file, and its bytes.

    The key is an int in a tree with integer keys.
    """

    key: int | bytes
    at: int
    content: bytes


def tree_at(raw: bytes, at: int = 0) -> Tree:
    """Return the description of a tree that begins at an offset."""
    return Tree(*TREE_RECORD.unpack_from(raw, at))


def sort_key(key: bytes, flags: int) -> int | bytes:
    """Return a key in the form by which a tree with these flags is sorted."""
    return int.from_bytes(key, sys.byteorder) if flags & INTEGER_KEYS else key


def nodes_of(page: bytes, *, leaf: bool) -> tuple[list[Node], list[str]]:
    """Return the nodes that lie inside a page, and the faults of the page."""
    size = len(page)
    _, _, _, lower, upper = PAGE_HEADER.unpack_from(page, 0)
    faults = []
    if lower % 2 or not HEADER <= lower <= upper <= size:
        faults.append(f"its bounds {lower} and {upper} are impossible")
        pointers: Sequence[int] = _likely_pointers(page)
    else:
        pointers = struct.unpack_from(f"={(lower - HEADER) // 2}H", page, HEADER)
    nodes: list[Node] = []
    spans: list[tuple[int, int]] = []
    for index, at in enumerate(pointers):
        if at % 2 or not HEADER <= at <= size - 8:
            faults.append(f"node {index} is said to be at {at}")
            continue
        low, high, flags, key_bytes = _NODE.unpack_from(page, at)
        end = at + 8 + key_bytes
        if leaf:
            end += 8 if flags & IN_OVERFLOW else low | high << 16
        if end > size or key_bytes > _MAX_KEY:
            faults.append(f"node {index} goes beyond its end")
            continue
        nodes.append(Node(at, low, high, flags, page[at + 8 : at + 8 + key_bytes]))
        spans.append((at, end + end % 2))
    if not faults:
        spans.sort()
        ends = [upper, *(end for _, end in spans)]
        if [at for at, _ in spans] != ends[:-1] or ends[-1] != size:
            faults.append("its nodes overlap or leave gaps")
    return nodes, faults


def _likely_pointers(page: bytes) -> list[int]:
    """Return likely offsets of nodes in a page whose bounds are impossible."""
    found: list[int] = []
    least = len(page)
    for (at,) in struct.iter_unpack("=H", page[HEADER:]):
        if HEADER + 2 * len(found) >= least or at % 2 or not HEADER < at <= len(page) - 8:
            break
        found.append(at)
        least = min(least, at)
    return found
