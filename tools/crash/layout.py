"""Find the bytes of a data file that hold something: a walk over the pages of LMDB 0.9.

A byte is *held* when it is part of what the newest meta page reaches, or of what tells which meta
page that is. The rest of the pages that are reached is *slack*: between the pointers and the nodes
of a page, after the value in the last of its pages, unused fields, and most of the older meta page.
Of what is held, *structure* is what the engine follows: the rest is keys and values of diskreplay.

::

    page   number u64, pad u16, flags u16, lower u16, upper u16    (or, for values of several pages,
           pointers u16 ... | free | ... nodes                      number of pages u32)
    node   size low u16, size high u16, flags u16, key size u16, key, value
    meta   magic u32, version u32, address u64, map size u64, free db, main db, last page u64,
           transaction u64
    db     pad u32, flags u16, depth u16, branch, leaf, overflow pages u64, entries u64, root u64
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_HEADER, _NODE, _DB = 16, 8, 48
_META_AT, _FREE_AT, _MAIN_AT, _LAST_AT, _TXN_AT = 16, 40, 88, 136, 144
_BRANCH, _LEAF = 0x01, 0x02
_BIG, _SUB = 0x01, 0x02
_NONE = 2**64 - 1

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Layout:
    """Masks over the bytes of a data file."""

    page: int  # bytes
    live: Mask
    held: Mask
    structure: Mask
    roots: Mask  # what the meta pages and the records of databases hold


def layout_of(data: bytes) -> Layout:
    """Walk a sound data file."""
    walk = _Walk(data)
    return Layout(walk.page, walk.live, walk.held, walk.structure, walk.roots)


class _Walk:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.page = self.number("I", _FREE_AT)
        self.live, self.held, self.structure, self.roots = np.zeros((4, len(data)), bool)
        txns = [self.number("Q", at + _TXN_AT) for at in (0, self.page)]
        for base, txn in zip((0, self.page), txns, strict=True):
            self.live[base : base + self.page] = True
            self.hold(base, 8)
            self.hold(base + 10, 2)
            self.hold(base + _META_AT, 8)
            self.hold(base + _FREE_AT, 4)
            self.hold(base + _TXN_AT, 8)
            if txn == max(txns):
                self.hold(base + _LAST_AT, 8)
                self.walk_db(base + _FREE_AT)
                self.walk_db(base + _MAIN_AT)
        self.roots[: 2 * self.page] = self.held[: 2 * self.page]

    def number(self, form: str, at: int) -> int:
        found: int = struct.unpack_from("=" + form, self.data, at)[0]
        return found

    def hold(self, at: int, n: int, *, structure: bool = True) -> None:
        self.held[at : at + n] = True
        self.structure[at : at + n] = structure

    def walk_db(self, at: int) -> None:
        self.hold(at + 4, _DB - 4)
        self.roots[at + 4 : at + _DB] = True
        root = self.number("Q", at + 40)
        if root != _NONE:
            # Of the databases that users of the engine have none is this one: it lists free pages.
            self.walk_page(root, is_free=at % self.page == _FREE_AT and at < 2 * self.page)

    def walk_page(self, number: int, *, is_free: bool) -> None:
        base = number * self.page
        self.live[base : base + self.page] = True
        flags, lower = self.number("H", base + 10), self.number("H", base + 12)
        self.hold(base, 8)
        self.hold(base + 10, lower - 10)
        for at in range(base + _HEADER, base + lower, 2):
            node = base + self.number("H", at)
            if flags & _BRANCH:
                self.walk_branch(node, is_first=at == base + _HEADER, is_free=is_free)
            else:
                self.walk_leaf(node, is_free=is_free)

    def walk_branch(self, node: int, *, is_first: bool, is_free: bool) -> None:
        low, high, top, key_size = struct.unpack_from("=HHHH", self.data, node)
        # The first key of a branch is less than all others by convention, and never looked at.
        self.hold(node, _NODE if is_first else _NODE + key_size)
        self.walk_page(low | high << 16 | top << 32, is_free=is_free)

    def walk_leaf(self, node: int, *, is_free: bool) -> None:
        low, high, flags, key_size = struct.unpack_from("=HHHH", self.data, node)
        size, value = low | high << 16, node + _NODE + key_size
        self.hold(node, _NODE)
        self.hold(node + _NODE, key_size, structure=is_free or bool(flags & _SUB))
        if flags & _BIG:
            self.hold(value, 8)
            base = self.number("Q", value) * self.page
            pages = self.number("I", base + 12)
            self.live[base : base + pages * self.page] = True
            self.hold(base, 8)
            self.hold(base + 10, 6)
            self.hold(base + _HEADER, size, structure=is_free)
        elif flags & _SUB:
            self.walk_db(value)
        else:
            self.hold(value, size, structure=is_free)
