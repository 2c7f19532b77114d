"""diskreplay.verify: it finds all that is wrong, beside a writer too, and no damage ends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb.verify
import numpy as np
import pytest
from children import in_child
from common import SUPPORT, run_python
from stores import MAKERS, PAGE, change, empty, kept, prioritized, stored, uniform, walk_of
from xxhash import xxh3_64_intdigest

import diskreplay
from diskreplay import PrioritizedReplayBuffer, verify
from diskreplay.lmdbfile.pages import nodes_of
from diskreplay.records.seals import seal

FLIPS = 40


def everything(path: Path) -> tuple[Any, ...]:
    """All that a buffer gives back."""
    with diskreplay.open(path, access="read") as buffer:
        left_out = ("path", "disk_bytes", "free_bytes", "openers")
        stats = {k: v for k, v in buffer.stats().items() if k not in left_out}
        is_prioritized = isinstance(buffer, PrioritizedReplayBuffer)
        ids = range(buffer.first, buffer.count)
        priorities = buffer.priorities(ids).tobytes() if is_prioritized else b""
    return stats, priorities, kept(path)


@pytest.mark.parametrize("make", [*MAKERS, empty])
def test_a_sound_store_and_its_copy_have_no_faults_and_are_not_changed(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    store = make(tmp_path / "s")
    before = (store / "data.mdb").read_bytes()
    assert verify(store) == verify(str(store)) == []
    assert (store / "data.mdb").read_bytes() == before
    with diskreplay.open(store) as buffer:  # nothing is held afterwards
        with pytest.raises(diskreplay.LockedError, match="open in this process"):
            verify(store)
        buffer.save(tmp_path / "copy")
    assert verify(tmp_path / "copy") == []


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "else").touch()
    for path in (tmp_path / "nothing", tmp_path / "empty", tmp_path, tmp_path / "else"):
        with pytest.raises(diskreplay.NotAStoreError):
            verify(path)


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is forbidden to root")
def test_what_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (empty(tmp_path / "s") / "data.mdb").chmod(0)
    with pytest.raises(diskreplay.StorageError, match="Permission denied"):
        verify(tmp_path / "s")


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [
        (b"", "expected a format version and a uuid"),
        (b"{}", "expected a format version and a uuid"),
        (b"\xff" * 100, "expected a format version and a uuid"),
        (b"[" * 5000, "expected a format version and a uuid"),
        (b'{"format": 7, "uuid": "x"}', "has format 7"),
        (b'{"format": 1, "uuid": "x"}', "belongs to another store"),
    ],
)
def test_a_damaged_manifest_is_a_fault(manifest: bytes, fault: str, tmp_path: Path) -> None:
    (uniform(tmp_path / "s") / "diskreplay.json").write_bytes(manifest)
    [found] = verify(tmp_path / "s")
    assert fault in found


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("openers.lock", "openers.lock is missing"),
        ("data.mdb", "data.mdb is missing beside its manifest"),
    ],
)
def test_a_missing_file_is_a_fault(name: str, fault: str, tmp_path: Path) -> None:
    (empty(tmp_path / "s") / name).unlink()
    [found] = verify(tmp_path / "s")
    assert fault in found


@pytest.mark.parametrize("how", ["link", "pipe", "directory"])
@pytest.mark.parametrize(
    "name", ["diskreplay.json", "data.mdb", "lock.mdb", "openers.lock", "writer.lock"]
)
def test_no_pipe_is_waited_for_and_no_link_followed(name: str, how: str, tmp_path: Path) -> None:
    place = empty(tmp_path / "s") / name
    victim = tmp_path / "victim"
    place.rename(victim) if name != "lock.mdb" else victim.write_bytes(b"precious" * 999)
    before = victim.read_bytes()
    place.unlink(missing_ok=True)
    if how == "pipe":
        os.mkfifo(place)
    elif how == "directory":
        place.mkdir()
    else:
        place.symlink_to(victim)
    assert f"{name} is not a file" in verify(tmp_path / "s")[0]
    with pytest.raises(diskreplay.DamageError, match="is not a file"):
        diskreplay.open(tmp_path / "s")
    assert victim.read_bytes() == before


@pytest.mark.parametrize("make", [*MAKERS, empty])
def test_a_file_that_is_cut_off_at_any_page_is_damaged(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    data = make(tmp_path / "s") / "data.mdb"
    with walk_of(tmp_path / "s") as walk:
        end = int(np.flatnonzero(~walk.free)[-1] + 1) * PAGE  # free pages may be cut off
    content = data.read_bytes()
    sizes = [*range(0, end, max(1, len(content) // PAGE // 16) * PAGE), 1, 5000, 12300]
    for size in sizes:
        data.write_bytes(content[:size])
        faults = verify(tmp_path / "s")
        assert faults, size
        assert all("data.mdb" in f or "page" in f or " is missing" in f for f in faults[:1]), faults


@pytest.mark.parametrize("make", MAKERS)
def test_every_page_that_is_zeroed_or_doubled_or_random_is_found(
    make: Callable[[Path], Path], tmp_path: Path, long: bool
) -> None:
    data = make(tmp_path / "s") / "data.mdb"
    content = data.read_bytes()
    pages = len(content) // PAGE
    before = everything(tmp_path / "s")
    generator = np.random.default_rng(0)
    found = 0
    for page in range(pages):
        at = page * PAGE
        other = (page + 1) % pages * PAGE
        bads = [bytes(PAGE), generator.bytes(PAGE), content[other : other + PAGE]]
        for bad in bads if long else bads[page % 3 : page % 3 + 1]:
            data.write_bytes(content[:at] + bad + content[at + PAGE :])
            if verify(tmp_path / "s"):
                found += 1
            else:
                assert everything(tmp_path / "s") == before
    assert found > pages * (3 if long else 1) / 6


@pytest.mark.parametrize("make", [*MAKERS, empty])
def test_a_flipped_bit_is_found_or_changes_nothing(
    make: Callable[[Path], Path], tmp_path: Path, long: bool
) -> None:
    store = make(tmp_path / "s")
    data = store / "data.mdb"
    content = data.read_bytes()
    before = everything(store)
    generator = np.random.default_rng(7)
    bits = generator.integers(0, len(content) * 8, 20 * FLIPS if long else FLIPS).tolist()
    # The first bytes of pages say the most.
    bits += (generator.integers(0, len(content) // PAGE, len(bits)) * PAGE * 8).tolist()
    bits[FLIPS:] = [b + int(generator.integers(0, 320)) for b in bits[FLIPS:]]

    def try_them(some: list[int]) -> int:
        found = 0
        for bit in some:
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            data.write_bytes(flipped)
            if verify(store):
                found += 1
            else:
                assert lmdb.verify.verify(str(store)) == []
                assert everything(store) == before
        return found

    found = 0
    for first in range(0, len(bits), FLIPS):
        some = bits[first : first + FLIPS]
        outcome = in_child(lambda some=some: try_them(some), seconds=60)  # type: ignore[misc]
        pairs = zip(content, data.read_bytes(), strict=True)
        last = [(at // PAGE, at % PAGE, a ^ b) for at, (a, b) in enumerate(pairs) if a != b]
        assert not outcome.failure, (last, outcome.failure)
        found += outcome.value
    assert found >= len(bits) / 8


@pytest.mark.parametrize("make", MAKERS[:2])
def test_a_branch_that_leads_elsewhere_is_found(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    """A key that is off by one hides a record, and neither the engine nor its verifier says so."""
    data = make(tmp_path / "s") / "data.mdb"
    content = data.read_bytes()
    with walk_of(tmp_path / "s") as walk:
        root = walk.trees()[b"transitions"].root
        nodes, faults = nodes_of(walk.file.page(root), leaf=False)
    assert len(nodes) > 2
    assert not faults
    for node in nodes[1:]:
        at = root * PAGE + node.at + 8
        number = int.from_bytes(node.key, sys.byteorder)
        for wrong in (number - 1, number + 1):
            changed = wrong.to_bytes(8, sys.byteorder)
            data.write_bytes(content[:at] + changed + content[at + 8 :])
            assert "is not in its place" in verify(tmp_path / "s")[0]


BOMB = b"\xdd\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("database", "key", "value", "fault"),
    [
        ("transitions", 5, None, "the record of write id 305 in slot 5 is missing"),
        ("transitions", 300, b"x", "there is a record in slot 300 of 300"),
        ("transitions", 2**63, b"x", f"there is a record in slot {2**63} of 300"),
        ("transitions", 5, b"", "write id 305 in slot 5 is damaged"),
        ("transitions", 5, b"x" * 66, "write id 305 in slot 5 is damaged"),
        ("priorities", 0, seal(0, bytes(1200)), "priority block 0 belongs to no slots"),
        ("runs", 1, None, "the description of run 1 is missing"),
        ("runs", 2, seal(2, {}), "the description of run 2 holds no number of first"),
        ("runs", 0, seal(1, {}), "the description of run 0 is damaged"),
        ("meta", "identity", None, "the identity cannot be read"),
        ("meta", "identity", seal("identity", 3), "the identity is not a table"),
        ("meta", "schema", None, "the schema cannot be read"),
        ("meta", "schema", seal("schema", [["x", "<f4", [2]]]), "schema of data.mdb is damaged"),
        ("meta", "state", None, "the state cannot be read"),
        ("meta", "state", seal("state", {}), "the state holds no number of count"),
        ("meta", "state", b"\x93\xcf" + BOMB, "the state is damaged"),
        ("meta", "other", seal("another", 1), "the other is damaged"),
        ("meta", "layout", seal("layout", {}), "data.mdb does not list its features"),
    ],
)
def test_values_that_are_not_a_store_s_are_found(
    database: str, key: str | int, value: bytes | None, fault: str, tmp_path: Path
) -> None:
    change(uniform(tmp_path / "s"), database, key, value)
    faults = verify(tmp_path / "s")
    assert fault in faults[0]


def test_an_older_record_in_its_slot_is_found(tmp_path: Path) -> None:
    store = uniform(tmp_path / "s")
    record = stored(store, "transitions", 5)
    body = record[10:11] + (5).to_bytes(8, "big") + record[19:]
    checksum = xxh3_64_intdigest(body).to_bytes(8, "big")
    change(store, "transitions", 5, record[:2] + checksum + body)
    assert verify(store) == ["the record of write id 305 in slot 5 is damaged: it holds write id 5"]


def test_priorities_that_are_none_are_found(tmp_path: Path) -> None:
    store = prioritized(tmp_path / "s")
    change(store, "priorities", 1, None)
    assert verify(store) == ["the content of priority block 1 is missing"]
    for bad in (np.nan, -1.0, np.inf):
        change(store, "priorities", 1, seal(1, np.full(100, bad, "<f4").tobytes()))
        assert verify(store) == ["priority block 1 holds a value that is not a priority"]
    change(store, "priorities", 1, seal(1, bytes(396)))
    assert verify(store) == ["priority block 1 has 396 bytes (expected 400)"]


def test_what_a_clear_left_behind_is_checked_too(tmp_path: Path) -> None:
    store = prioritized(tmp_path / "s")  # write ids from 1000 on are live, 250 to 999 are left
    assert verify(store) == []
    change(store, "transitions", 700, stored(store, "transitions", 701))
    assert verify(store) == ["the record in slot 700 holds write id 701"]
    change(store, "transitions", 700, b"x" * 66)
    assert "slot 700" in verify(store)[0]


def test_a_missing_database_is_found(tmp_path: Path) -> None:
    store = uniform(tmp_path / "s")
    with lmdb.open(str(store), max_dbs=8, map_size=1 << 42) as env, env.begin(write=True) as txn:
        txn.drop(env.open_db(b"priorities", txn), delete=True)
    assert verify(store) == ["the database priorities is missing"]


def test_the_data_file_of_another_store_is_found(tmp_path: Path) -> None:
    first, second = uniform(tmp_path / "a"), uniform(tmp_path / "b")
    shutil.copy(first / "data.mdb", second / "data.mdb")
    [found] = verify(second)
    assert "data.mdb belongs to another store" in found


WRITER = """
    import sys
    import numpy as np
    from common import columns
    from diskreplay import PrioritizedReplayBuffer
    with PrioritizedReplayBuffer(3000, path=sys.argv[1], commit_interval=0) as buffer:
        while True:
            buffer.extend(*columns(buffer.count, 40).values())
            buffer.sample(8)
            print(buffer.count, flush=True)
"""


def test_beside_a_writer_one_commit_is_checked(tmp_path: Path, long: bool) -> None:
    run_python(WRITER.replace("while True", "while buffer.count < 6000"), tmp_path / "s")
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        cwd=SUPPORT,
    )
    assert writer.stdout is not None
    try:
        writer.stdout.readline()
        os.set_blocking(writer.stdout.fileno(), False)
        end = time.monotonic() + (60 if long else 2)
        rounds = commits = 0
        while time.monotonic() < end:
            while writer.stdout.readline():
                pass
            assert verify(tmp_path / "s") == []
            rounds += 1
            commits += bool(writer.stdout.read())
        assert writer.poll() is None
        assert rounds > 5
        assert commits > 5  # while it was checked
    finally:
        writer.kill()
        writer.communicate()
    assert verify(tmp_path / "s") == []
