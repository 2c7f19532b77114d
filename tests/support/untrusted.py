"""Stores from a stranger: mutations of sound ones, at the level of bytes and of values."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from changed_values import (
    NUMBERS,
    Generator,
    Mutation,
    fact,
    number_key,
    pick,
    put,
    put_fact,
    record,
    sealed_body,
    values,
)
from untrusted_logs import odd_log
from untrusted_marks import MARKS, databases, odd_marks

from diskreplay.records.seals import seal, unseal

PAGE = 4096

DTYPES = [
    "<f4", "<f8", "|u1", "|b1", "<i8", "<c16", "<f2", "<f16", ">f4", "|O", "|V8", "|S4", "<U4",
    "<M8", "f4,f4", "", "x", "<f4" * 1000, "i", "2f4", "<<<f4", "|f4", 4, None, [], b"<f4",
]  # fmt: skip
LARGE_CAPACITIES = [2**14, 2**20, 2**27, 2**33, 2**40]
NAMES = [
    "state", "", "a b", "weights", "x" * 10_000, "été", "__class__", "priority", 3, None, b"a",
    "state.a", "state[0]", "state[1]", "next_state.a", "reward.a", "x.a", "x[0].b.c", "x.", "x[",
    "x[999999999]", "x" + ".y" * 31, "x" + ".y" * 500_000, "x.\x1b[2J", "x.$\\frac{$", "x.<script>",
]  # fmt: skip
SHAPES = [
    [], [0], [1], [2], [-1], [2**20], [2**28], [2**31], [2**63], [2**64 - 1], [2**20] * 4,
    [0, 2**40], [1] * 32, [1] * 33, [1] * 100, [1] * 5000, [0.5], ["2"], [None], [True], "12", None,
    5, {"a": 1}, [[2]],
]  # fmt: skip
LOGS = [  # where a field says that it is in the log
    *NUMBERS, {"frame_axis": None, "codec": None},
    *({"frame_axis": axis, "codec": None} for axis in (0, 1, -1, 2**40, True, "0", [0])),
    *({"frame_axis": None, "codec": codec} for codec in ("lz4", "zstd", "x", b"lz4", 4, [], {})),
]  # fmt: skip
BODIES = [
    b"\x91" * 100_000,
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\x81" * 50_000,
    b"\xd7\xff" + b"\xff" * 8,
    b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\xc1",
    b"\xa4\xff\xfe\xfd\xfc",
    b"\x81\x91\x01\x02",
    b"\x82\xa1a\x01\xa1a\x02",
    b"\x90",
    b"",
]


# Bytes


def random_bytes(path: Path, generator: Generator) -> None:
    content = bytearray((path / "data.mdb").read_bytes())
    for _ in range(int(generator.integers(1, 30))):
        at = int(generator.integers(len(content)))
        if generator.random() < 0.7:
            at = at // PAGE * PAGE + at % 200
        content[at] = int(generator.choice([0, 1, 0x7F, 0x80, 0xFF, generator.integers(256)]))
    (path / "data.mdb").write_bytes(content)


def splice(path: Path, generator: Generator) -> None:
    content = bytearray((path / "data.mdb").read_bytes())
    n = int(generator.integers(1, PAGE))
    here, there = (int(generator.integers(len(content) - n)) for _ in range(2))
    content[here : here + n] = content[there : there + n]
    if generator.random() < 0.3:
        del content[here : here + n]
    (path / "data.mdb").write_bytes(content)


def truncate(path: Path, generator: Generator) -> None:
    content = (path / "data.mdb").read_bytes()
    size = int(generator.integers(len(content)))
    more = bytes(int(generator.integers(3)) * PAGE * 10)
    (path / "data.mdb").write_bytes(content[: size - size % int(pick(generator, [1, PAGE]))] + more)


def shuffle_pages(path: Path, generator: Generator) -> None:
    content = bytearray((path / "data.mdb").read_bytes())
    pages = len(content) // PAGE
    for _ in range(int(generator.integers(1, 4))):
        one, two = (int(generator.integers(pages)) * PAGE for _ in range(2))
        keep_number = generator.random() < 0.7
        a, b = content[one : one + PAGE], content[two : two + PAGE]
        if keep_number:
            a[:8], b[:8] = b[:8], a[:8]
        content[one : one + PAGE], content[two : two + PAGE] = b, a
    (path / "data.mdb").write_bytes(content)


def page_words(path: Path, generator: Generator) -> None:
    """Set a field of a meta page or of a tree to a number that means something."""
    content = bytearray((path / "data.mdb").read_bytes())
    page = int(generator.integers(len(content) // PAGE)) if generator.random() < 0.5 else 0
    page = page if page else int(generator.integers(2))
    at = page * PAGE + 2 * int(generator.integers(80))
    width = int(pick(generator, [2, 4, 8]))
    number = int(
        pick(generator, [0, 1, 2, 3, 5, 17, 2**15, 2**16 - 1, 2**32 - 1, 2**63, 2**64 - 1])
    )
    content[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, sys.byteorder)
    (path / "data.mdb").write_bytes(content)


def manifest(path: Path, generator: Generator) -> None:
    uuid = json.loads((path / "diskreplay.json").read_text())["uuid"]
    texts = [
        b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 4000, b'{"a":' * 800, b"1" * 4096,
        b'{"format": 1}', b'{"format": 1e400, "uuid": "a"}', b'{"format": 1, "uuid": 3}',
        b'{"format": true, "uuid": "%s"}' % uuid.encode(), b'{"format": "1", "uuid": "a"}',
        b'{"format": 1, "uuid": "\\ud800"}', b'{"format": 99999999999999999999, "uuid": "a"}',
        b'{"format": ' + b"9" * 4000 + b', "uuid": ""}',
        b'{"format": 1, "uuid": "%s"}' % (b"x" * 9000), generator.bytes(200),
    ]  # fmt: skip
    (path / "diskreplay.json").write_bytes(pick(generator, texts))


def lock_file(path: Path, generator: Generator) -> None:
    texts = [b"", b"x", bytes(8192), generator.bytes(8192), b"\xff" * 70_000]
    (path / "lock.mdb").write_bytes(pick(generator, texts))
    (path / str(pick(generator, ["writer.lock", "openers.lock"]))).write_bytes(
        generator.bytes(3000)
    )


def odd_files(path: Path, generator: Generator) -> None:
    """A link, a pipe or a directory in the place of a file."""
    place = path / str(
        pick(generator, ["lock.mdb", "data.mdb", "diskreplay.json", "openers.lock", "writer.lock"])
    )
    content = place.read_bytes() if place.exists() else b""
    place.unlink(missing_ok=True)
    victim = path.parent / "victim"
    victim.write_bytes(content or b"precious" * 1000)
    how = int(generator.integers(3))
    if how == 0:
        place.symlink_to(victim)
    elif how == 1:
        os.mkfifo(place)
    else:
        place.mkdir()


# Values


def bomb(path: Path, generator: Generator) -> None:
    body = pick(generator, BODIES)
    if generator.random() < 0.7:
        name = pick(generator, ["identity", "schema", "layout", "state"])
        put(path, "meta", {name.encode(): sealed_body(name, body)})
    else:
        put(path, pick(generator, ["priorities", "runs"]), {number_key(0): sealed_body(0, body)})


def odd_identity(path: Path, generator: Generator) -> None:
    identity = fact(path, "identity")
    key = pick(generator, ["kind", "capacity", "uuid", "keep_rows"])
    if generator.random() < 0.2:
        identity.pop(key, None)
    else:
        identity[key] = pick(generator, [*NUMBERS, "uniform", "prioritized", 59, 61])
    put_fact(path, "identity", identity)


def odd_state(path: Path, generator: Generator) -> None:
    state = fact(path, "state")
    for _ in range(int(generator.integers(1, 3))):
        key = pick(generator, list(state))
        if generator.random() < 0.1:
            del state[key]
            break
        state[key] = pick(generator, [*NUMBERS, b"\0" * 15, b"\xff" * 16])
    put_fact(path, "state", state)


def odd_counts(path: Path, generator: Generator) -> None:
    state = fact(path, "state")
    count = int(pick(generator, [0, 1, 60, 99, 101, 2**31, 2**40, 2**62, 2**63 - 1, 2**63 - 61]))
    state["count"] = count
    state["start"] = int(
        pick(generator, [0, 1, count, max(0, count - 1), max(0, count - 60), 2**63 - 1])
    )
    put_fact(path, "state", state)
    if generator.random() < 0.5:
        identity = fact(path, "identity")
        identity["capacity"] = int(pick(generator, [1, 59, *LARGE_CAPACITIES]))
        put_fact(path, "identity", identity)


def odd_inner(path: Path, generator: Generator) -> None:
    state = fact(path, "state")
    table = pick(generator, ["settings", "sampler"])
    inner = state[table]
    keys = list(inner)
    if not keys or generator.random() < 0.1:
        state[table] = pick(generator, NUMBERS)
    else:
        inner[pick(generator, keys)] = pick(
            generator, [*NUMBERS, "full", b"\xff" * 16, b"\0" * 15, "x" * 16, 1 << 31]
        )
    if generator.random() < 0.1:
        inner["path"] = "elsewhere"
    put_fact(path, "state", state)


def odd_schema(path: Path, generator: Generator) -> None:
    schema = fact(path, "schema")
    if generator.random() < 0.2:
        plains = [*NUMBERS, [[]], [[1, 2, 3]], ["abc"], schema * 2, [["x", "<f4", []]] * 5]
        plains += [schema + [[name, "|b1", []]] for name in NAMES]
        plains += [schema + [[f"x[{i}]", "|b1", []] for i in range(n)] for n in (3, 60_000)]
        schema = pick(generator, [*plains, schema + [[f"x{i}", "|b1", []] for i in range(70_000)]])
    else:
        field = schema[int(generator.integers(len(schema)))]
        part = int(generator.integers(4))
        field[part : part + 1] = [pick(generator, [NAMES, DTYPES, SHAPES, LOGS][part])]
    put_fact(path, "schema", schema)


def odd_layout(path: Path, generator: Generator) -> None:
    layout = fact(path, "layout")
    key = pick(generator, list(layout))
    numbers = [2, 3, 5, 64, 1000, 2**16, *NUMBERS]
    names = [[], ["log"], ["x" * 10_000], [None], [[]], {"log": 1}, "log", *NUMBERS]
    layout[key] = pick(generator, names if key == "features" else numbers)
    if generator.random() < 0.2:
        del layout[pick(generator, list(layout))]
    put_fact(path, "layout", layout)
    if generator.random() < 0.2:
        put(path, "meta", {b"layout": None})
        odd_records(path, generator)


def odd_runs(path: Path, generator: Generator) -> None:
    number = int(pick(generator, [0, 1, 2, 2**63]))
    content: Any = pick(generator, NUMBERS)
    if generator.random() < 0.5:
        found = values(path, "runs")[number_key(0)]
        content = unseal(found, 0, "run")
        content[pick(generator, list(content))] = pick(generator, NUMBERS)
    try:
        put(path, "runs", {number_key(number): seal(number, content)})
    except OverflowError:
        put(path, "runs", {number_key(number): seal(number, None)})


def odd_blocks(path: Path, generator: Generator) -> None:
    number = int(pick(generator, [0, 0, 0, 1, 5, 2**40, 2**63, 2**64 - 1]))
    floats = np.full(60, pick(generator, [np.nan, -1.0, np.inf, 0.0, 3e38, 1e-45]), "<f4")
    contents = [
        floats.tobytes(), floats.tobytes()[:-1], floats.tobytes() * 100, b"", None, "x" * 240,
        [1.0] * 60, 7,
    ]  # fmt: skip
    key = number_key(number) if generator.random() < 0.9 else b"abc"
    put(path, "priorities", {key: seal(number, pick(generator, contents))})


def odd_records(path: Path, generator: Generator) -> None:
    found = values(path, "transitions")
    key, raw = pick(generator, list(found.items()))
    write_id = int.from_bytes(raw[11:19], "big", signed=True)
    rests = [
        raw[19:],
        raw[20:],
        b"",
        raw[19:] * 300,
        bytes(len(raw) - 19),
        b"\xff" * (len(raw) - 19),
    ]
    new = record(
        int(pick(generator, [write_id, write_id + 60, write_id - 60, -1, 2**63 - 1])),
        pick(generator, rests),
    )
    keys = [
        key,
        key,
        key,
        number_key(60),
        number_key(2**40),
        number_key(2**64 - 1),
        b"abc",
        b"k" * 16,
    ]
    put(path, "transitions", {pick(generator, keys): new})


def lost_values(path: Path, generator: Generator) -> None:
    names = ["transitions", "priorities", "observations", "runs", "meta", *MARKS]
    database = str(pick(generator, names))
    found = list(values(path, database)) if database in databases(path) else []
    if found:
        n = int(generator.integers(1, len(found) + 1))
        gone = generator.permutation(len(found))[:n].tolist()
        put(path, database, {found[i]: None for i in gone})


def odd_trees(path: Path, generator: Generator) -> None:
    """Another database, or one of ours with other flags."""
    names = ["transitions", "priorities", "observations", "runs", "meta", "more", *MARKS]
    name = str(pick(generator, names))
    there = databases(path)
    with lmdb.open(str(path), max_dbs=9, map_size=1 << 42) as env:
        if name in there:
            db = env.open_db(name.encode(), create=False)
            with env.begin(write=True) as txn:
                txn.drop(db, delete=True)
        if generator.random() < 0.8:
            flags = pick(
                generator,
                [{}, {"dupsort": True}, {"reverse_key": True}, {"dupsort": True, "dupfixed": True},
                 {"integerkey": True}],
            )  # fmt: skip
            db = env.open_db(name.encode(), **flags)
            with env.begin(write=True, db=db) as txn:
                for number in range(int(generator.integers(3))):
                    txn.put(number_key(0), seal(0, number))


BYTES: list[Mutation] = [
    (f.__name__, f)
    for f in (
        random_bytes,
        splice,
        truncate,
        shuffle_pages,
        page_words,
        manifest,
        lock_file,
        odd_files,
    )
]
VALUES: list[Mutation] = [
    (f.__name__, f)
    for f in (
        bomb, odd_identity, odd_state, odd_counts, odd_inner, odd_schema, odd_layout, odd_runs,
        odd_blocks, odd_records, odd_log, odd_marks, lost_values, odd_trees,
    )
]  # fmt: skip
