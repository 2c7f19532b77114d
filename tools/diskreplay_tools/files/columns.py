"""The files of `export` and `import`: their columns, what they say of the store, and their writing.

A file has a column for each field, in the order of the schema, after `write_id` and `link` and,
where the buffer is prioritized, before `priority`. What the columns do not say is a JSON object::

    {"format": 1, "kind": "prioritized", "capacity": 1000, "schema": [["state", "<f4", [3]], ...],
     "settings": {"alpha": 0.6, ...}, "max_priority": 2.5, "links": true,
     "versions": {"diskreplay": ...}}

In an npz it is the member `diskreplay.json`, in a parquet file the schema's metadata under
`diskreplay`; jsonl has none, so that every line is a transition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import diskreplay
from diskreplay.aliases import Array
from diskreplay_tools.plain import dumps
from diskreplay_tools.stores import Buffer

Table = dict[str, Array]
FORMAT = 1
MEMBER = "diskreplay.json"
KEY = b"diskreplay"
PRIORITY, WRITE_ID, LINK = "priority", "write_id", "link"
RUN_SETTINGS = ("durability", "commit_interval")
PRIORITIZED_SETTINGS = ("alpha", "beta_start", "beta_end", "beta_frames", "epsilon")
CHUNK_BYTES = 4 << 20
_VARYING_BYTES = 1024


class Column(NamedTuple):
    """A column of a file: its name, and the dtype and the shape of one row of it.

    Of a file that is read also how many rows it has, and why it cannot be used, if so. Values that
    vary in size have a length that is None, or are text or bytes.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    rows: int = 0
    fault: str = ""
    varies: bool = False

    @property
    def row_bytes(self) -> int:
        """The bytes of one row; of values that vary in size a guess."""
        return _VARYING_BYTES if self.varies else self.dtype.itemsize * math.prod(self.shape)

    @property
    def type(self) -> str:
        """The dtype and the shape in one word, such as float32[60]."""
        if self.varies:
            return diskreplay.Field("column", self.dtype, self.shape).type
        return f"{self.dtype}{list(self.shape) if self.shape else ''}"


def columns_of(buffer: Buffer, more: Sequence[str] = (), *, links: bool = True) -> list[Column]:
    """Return the columns of what is exported of a buffer.

    more:   names of columns of whole numbers, after the write ids and links
    links:  whether there is a column of links
    """
    fields = buffer.schema.fields if buffer.schema is not None else ()
    columns = [Column(WRITE_ID, np.dtype(np.int64))]
    columns += [Column(LINK, np.dtype(np.int32))] * links
    columns += [Column(name, np.dtype(np.int64)) for name in more]
    columns += [
        Column(field.name, field.dtype, field.shape, varies=field.varies) for field in fields
    ]
    if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        columns.append(Column(PRIORITY, np.dtype(np.float32)))
    return columns


def rows_in_chunk(columns: Sequence[Column]) -> int:
    """Return how many rows are worked on at once."""
    return max(1, CHUNK_BYTES // max(64, sum(column.row_bytes for column in columns)))


def metadata_of(buffer: Buffer, *, episodes: bool = False, links: bool = True) -> str:
    """Return what an import needs to make the same buffer again, as JSON.

    episodes, links:  whether there are columns of them, which are no fields
    """
    schema = buffer.schema
    stats = buffer.stats()
    names = list(RUN_SETTINGS)
    found = {
        "format": FORMAT,
        "kind": "uniform",
        "capacity": buffer.capacity,
        "schema": None if schema is None else schema.to_plain(),
    }
    if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        names += PRIORITIZED_SETTINGS
        found |= {"kind": "prioritized", "max_priority": buffer.max_priority}
    found["settings"] = {name: stats[name] for name in names}
    if episodes:
        found["episodes"] = True
    if links:
        found["links"] = True
    found["versions"] = {"diskreplay": diskreplay.__version__, "numpy": np.__version__}
    return dumps(found)


def stored_as(column: Column) -> tuple[np.dtype[Any], int | None]:
    """Return the dtype that parquet holds, and how many of it make a row; None is one number."""
    dtype, size = column.dtype, 0 if column.varies else math.prod(column.shape)
    if dtype.kind == "c":
        return np.dtype(f"f{dtype.itemsize // 2}"), 2 * size
    if dtype == np.float16:
        dtype = np.dtype(np.float32)  # few readers know its own type, and none before 2024
    return dtype, size if column.shape else None
