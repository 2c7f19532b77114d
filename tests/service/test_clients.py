"""Clients: who is connected to a server, and who may see it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.service.clients import address_of
from diskreplay.service.rights import RIGHTS, Tokens, add_token
from diskreplay.service.server import ReplayServer


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with (
        ReplayBuffer(capacity=10) as buffer,
        ReplayBuffer(capacity=10) as other,
        ReplayServer({"a": buffer, "b": other}) as server,
    ):
        yield server


def clients_of(replay: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = replay.stats()["clients"]
    return found


def test_a_client_is_shown_from_its_first_call_to_its_end(server: ReplayServer) -> None:
    before = time.time()
    with diskreplay.connect(f"{server.url}/a") as replay:
        [own] = clients_of(replay)
        assert own.pop("address").startswith("127.0.0.1:")
        assert before <= own.pop("since") <= time.time()
        assert own == {"name": "anyone", "rights": list(RIGHTS), "streams": 1, "is_own": True}
        with diskreplay.connect(f"{server.url}/b") as other:
            assert len(clients_of(other)) == 1  # of another replay
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(clients_of(replay)))
        thread.start()
        thread.join()
        assert [each["streams"] for each in seen[0]] == [2]  # each thread has one
    with diskreplay.connect(f"{server.url}/a") as replay:
        while len(found := clients_of(replay)) > 1:  # a server learns later of the end of a stream
            pass
        assert found[0]["is_own"]


def test_addresses_and_rights_of_others_are_for_admins(tmp_path: Path) -> None:
    made = {name: add_token(tmp_path / "tokens", name, rights) for name, rights in (
        ("eyes", ["read"]), ("boss", ["read", "admin"]), ("hands", ["push"]),
    )}  # fmt: skip
    tokens = Tokens.read(tmp_path / "tokens")
    with (
        ReplayBuffer(capacity=10) as buffer,
        ReplayServer({"a": buffer}, tokens=tokens) as server,
        diskreplay.connect(server.url, token=made["hands"]),
        diskreplay.connect(server.url, token=made["eyes"]) as eyes,
        diskreplay.connect(server.url, token=made["boss"]) as boss,
    ):
        found = clients_of(eyes)
        assert [(each["name"], each["rights"], each["is_own"]) for each in found] == [
            ("hands", None, False), ("eyes", ["read"], True), ("boss", None, False)
        ]  # fmt: skip
        assert [each["address"] is not None for each in found] == [False, True, False]
        assert all(each["since"] <= time.time() for each in found)
        found = clients_of(boss)
        assert [each["rights"] for each in found] == [["push"], ["read"], ["read", "admin"]]
        assert all(each["address"].startswith("127.0.0.1:") for each in found)
        text = repr((found, clients_of(eyes)))
        assert not any(token in text for token in made.values())


def test_peers_are_shown_as_in_urls() -> None:
    assert address_of("ipv4:10.0.0.7:40112") == "10.0.0.7:40112"
    assert address_of("ipv6:%5B::1%5D:40112") == "[::1]:40112"
    assert address_of("unix:") == "unix"
