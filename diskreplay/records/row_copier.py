"""RowCopier: the fields of large rows, copied from buffers into columns, each byte once.

Small rows are faster when they are joined and read as one structured array, since a call for each
row would take longer than the copies. Large rows are not: there the copies are what takes long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array

LARGE_ROW = 8192  # bytes; up to here joined rows are faster (measured, of batches of 32 and 256)
_LARGE_FIELD = 512  # bytes


class RowCopier:
    """Copies rows of one layout.

    names:  those of the layout's fields that are columns, in the order of the columns
    """

    def __init__(self, layout: np.dtype[Any], names: Sequence[str], others: Sequence[str]) -> None:
        fields: Any = layout.fields
        places = {name: fields[name][:2] for name in (*others, *names)}
        self._large = [  # column, begin, end
            (index, at, at + dtype.itemsize)
            for index, (dtype, at) in enumerate(map(places.__getitem__, names))
            if dtype.itemsize >= _LARGE_FIELD and dtype.base.isnative
        ]
        self._large.sort(key=lambda large: large[1])
        form, at, removed = "=", 0, []
        for _, begin, end in self._large:
            form += f"{begin - at}s{end - begin}x"
            removed.append((begin, end - begin))
            at = end
        self.cut = struct.Struct(f"{form}{layout.itemsize - at}s").unpack_from
        columns = {index for index, _, _ in self._large}
        small = [*others, *(name for i, name in enumerate(names) if i not in columns)]
        self.small = tuple(i for i in range(len(names)) if i not in columns)
        self._small_layout = np.dtype(
            {
                "names": small,
                "formats": [places[name][0] for name in small],
                "offsets": [
                    places[name][1] - sum(n for begin, n in removed if begin < places[name][1])
                    for name in small
                ],
                "itemsize": layout.itemsize - sum(n for _, n in removed),
            }
        )
        self.is_worth_it = layout.itemsize > LARGE_ROW and bool(self._large)

    def copy(
        self,
        rows: Iterable[memoryview],
        places: Sequence[int],
        columns: Sequence[Array | None],
    ) -> None:
        """Copy the large fields of each row to its place in the columns.

        columns:  C-contiguous, of the types of the fields; None for a field that is not wanted
        """
        targets = [
            (column.reshape(-1).view(np.uint8).data, begin, end, end - begin)
            for index, begin, end in self._large
            if (column := columns[index]) is not None
        ]
        for place, row in zip(places, rows, strict=True):
            for target, begin, end, size in targets:
                target[place * size : place * size + size] = row[begin:end]

    def joined(self, pieces: list[bytes]) -> NDArray[np.void]:
        """Return the small fields of rows as a structured array.

        pieces:  `cut(row)` of one row after the other: the bytes between its large fields
        """
        return np.frombuffer(b"".join(pieces), self._small_layout)
