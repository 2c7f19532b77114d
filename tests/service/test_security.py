"""What strangers and broken clients send is refused; the server goes on, and so do the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from common import columns, row

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

import pyarrow as pa
from pyarrow import flight
from service_process import ServiceProcess, serving
from strangers import exchanged, others_go_on, raw
from wire_bytes import Recorder, mutated, send_again

import diskreplay
from diskreplay import ArgumentError, Draw, NotAllowedError, SampleError, SchemaError
from diskreplay.service import RIGHTS, add_token
from diskreplay.service.messages import SCHEMA, receive, send
from diskreplay.service.rights import Tokens
from diskreplay.service.server import ReplayServer

LOCAL = "grpc://127.0.0.1:0"


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    """A token of each right, and one of all."""
    file = tmp_path / "tokens"
    made = {right: add_token(file, right, [right]) for right in RIGHTS}
    return {**made, "all": add_token(file, "all", RIGHTS)}


# Rights

CALLS: dict[str, list[Callable[[Any], object]]] = {
    "read": [
        len,
        lambda replay: replay.sample(2),
        lambda replay: replay.get([0]),
        lambda replay: replay.draw(2),
        lambda replay: replay.stats(),
        lambda replay: replay.marks(),
        lambda replay: replay.priorities([0]),
        lambda replay: replay.count,
        lambda replay: next(iter(replay)),
        lambda replay: next(replay.episodes()),
        lambda replay: replay.sample_sequences(2, 2),
        lambda replay: replay.refresh(),
    ],
    "push": [
        lambda replay: (replay.push(**row(9)), replay.flush()),
        lambda replay: replay.end_episode(),
        lambda replay: replay.flush(),
        lambda replay: replay._connection.call("leave", CLIENT),
    ],
    "update": [lambda replay: replay.update_priorities([0], [1.0])],
    "admin": [
        lambda replay: replay._connection.call("begin_save"),
        lambda replay: replay.mark("a"),
        lambda replay: replay.rewind("a"),
        lambda replay: replay.delete_mark("a"),
        lambda replay: replay.clear(),
    ],
}


def test_a_token_allows_its_right_alone(
    store: Path, tokens: dict[str, str], tmp_path: Path
) -> None:
    given = ("--listen", LOCAL, "--tokens", tmp_path / "tokens")
    with serving(store, *given, log=tmp_path / "log") as service:
        with diskreplay.connect(service.url, token=tokens["all"]) as replay:
            replay.extend(**columns(0, 20))
            replay.flush()
        for right, token in tokens.items():
            replay = diskreplay.connect(service.url, token=token)
            for needed, calls in CALLS.items():
                for call in calls if right != "all" else []:
                    if needed == right:
                        call(replay)
                        continue
                    with pytest.raises(NotAllowedError, match=f"the right '{needed}'"):
                        call(replay)
            replay.close()
        for wrong in (None, "-", "wrong", tokens["all"][:-1], tokens["all"] + "x"):
            with pytest.raises(NotAllowedError, match=r"needs a token|does not know the token"):
                diskreplay.connect(service.url, token=wrong)
        with flight.connect(service.url) as client, pytest.raises(flight.FlightError):
            [*client.do_action("health")]
        text = (tmp_path / "log").read_text()
        assert not any(token in text for token in tokens.values())
        refused = [entry for entry in service.logged if entry["event"] == "refused"]
        assert {entry["reason"] for entry in refused} == {"token", "right"}


def test_refusals_are_counted_by_their_reasons(tokens: dict[str, str], tmp_path: Path) -> None:
    options = flight.FlightCallOptions(
        headers=[(b"authorization", f"Bearer {tokens['read']}".encode())]
    )
    with (
        diskreplay.ReplayBuffer(capacity=10) as buffer,
        ReplayServer({"a": buffer}, tokens=Tokens.read(tmp_path / "tokens")) as server,
        diskreplay.connect(server.url, token=tokens["read"]) as replay,
        flight.connect(server.url) as client,
    ):
        for call in (lambda: diskreplay.connect(server.url), lambda: replay.end_episode()):
            with pytest.raises(NotAllowedError):
                call()
        with pytest.raises(SampleError):
            replay.sample(1)
        with pytest.raises(pa.ArrowException):
            [*client.list_flights(options=options)]
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b""), options)
        writer.begin(SCHEMA)
        send(writer, None)
        with pytest.raises(flight.FlightError):
            receive(reader)
        value_of = server.gate.metrics.registry.get_sample_value
        for reason in ("token", "right", "SampleError", "method", "malformed"):
            assert value_of("diskreplay_refused_total", {"reason": reason}) == 1, reason


# Limits


def test_calls_beyond_the_limits_are_refused(service: ServiceProcess, store: Path) -> None:
    with others_go_on(service, store) as replay:
        for call in (
            lambda: replay.sample(10_001),
            lambda: replay.draw(10_001),
            lambda: replay.sample_sequences(200, 100),
            lambda: replay.sample(4000, n_step=3),
            lambda: replay.get(np.zeros(10_001, np.int64)),
            lambda: replay.priorities(np.zeros(10_001, np.int64)),
            lambda: replay.runs_of(np.zeros(10_001, np.int64)),
            lambda: replay.update_priorities(np.zeros(10_001, np.int64), np.ones(10_001)),
        ):
            with pytest.raises(ArgumentError, match=r"at most 10,000 rows a call"):
                call()
        with pytest.raises(
            ArgumentError, match=r"at most 1.05 MB \(found 8.39 MB\).*--max-message"
        ):
            replay.get(np.zeros(1 << 20, np.int64))


def test_a_message_that_is_too_large_is_refused_and_its_stream_goes_on(
    service: ServiceProcess, store: Path
) -> None:
    with others_go_on(service, store) as replay:
        stream = raw(service)
        many = [np.zeros(10_001, np.uint8)] * 5
        for request in (
            ["push_group", [CLIENT, 1, many, GROUP], {}],
            ["push_first", [CLIENT, 1, "extend", many, {}], {}],
        ):
            is_done, error = exchanged(stream, request)
            assert not is_done
            assert "at most 10,000 rows a call (found 10,001)" in error[1][0]
        large = np.zeros(4 << 20, np.uint8)
        is_done, error = exchanged(stream, ["push_group", [CLIENT, 1, [large] * 5, {}], {}])
        assert not is_done
        assert "at most 1.05 MB (found 21.0 MB)" in error[1][0]
        assert exchanged(stream, ["len", [], {}]) == [True, 100]
        # A client of ours is told, and drops the rows: those behind them would wait for ever.
        replay.extend(**columns(0, 40_000))
        with pytest.raises(ArgumentError, match=r"refused 40,000 transitions.*--max-message"):
            replay.flush()


CLIENT = "0" * 32
ROWS = [*columns(0, 1).values()]
GROUP = {"fields": [*row(0)]}
ODD_REQUESTS: list[Any] = [
    None,
    [],
    ["sample"],
    ["sample", 3, {}],
    [["sample"], [3], {}],
    ["push_group", [CLIENT], {}],
    ["push_group", [CLIENT, "one", [], {}], {}],
    ["push_group", [CLIENT, 1, [np.zeros((1, 3))] * 9, {}], {}],
    ["push_group", [CLIENT, 1, [np.zeros((n, 2)) for n in range(5)], {}], {}],
    ["push_group", [CLIENT, 1, [np.zeros(1)] * 5, {"path": "x"}], {}],
    ["push_first", [CLIENT, 1, "close", [1], {}], {}],
    ["push_first", [CLIENT, 1, "push", [1], {}], {}],
    ["close", [], {}],
    ["__class__", [], {}],
    ["sample", [], {"batch_size": 1 << 40}],
    ["sample", [-1], {}],
    ["sample", [1 << 62], {}],
    ["sample", [3], {"n_step": 1 << 40}],
    ["sample", [float("nan")], {}],
    ["sample", ["3"], {}],
    ["sample", [4], {"frames": True, "prefetch": 1, "readers": 1}],
    ["sample", [4], {"frames": True, "prefetch": 1 << 40}],
    ["get", [[[1], [2, 3]]], {}],
    ["get", [[1], {"a": 1}], {}],
    ["rows", ["a", None], {}],
    ["rows", [{}, 1 << 62], {}],
    ["save", ["/tmp/x"], {}],
    ["mark", [1, 2], {}],
    ["sample", [[1]], {"n_step": 1 << 28}],
    ["sample", ["7"], {"n_step": 1 << 28}],
    ["sample_sequences", [[1], 1 << 28], {}],
    ["take_back", [np.zeros(0)], {}],
    ["rows", [0, np.zeros(0)], {}],
    ["get", [Draw(np.zeros(1, np.int64), np.zeros(1, np.int64))], {}],
    ["push_group", ["me", 1, ROWS, GROUP], {}],
    ["push_group", [CLIENT, 0, ROWS, GROUP], {}],
    ["push_group", [CLIENT, 1.5, ROWS, GROUP], {}],
    ["push_group", [CLIENT, 1, ROWS, {}], {}],
    ["push_group", [CLIENT, 1, ROWS, {**GROUP, "with_notes": {"mine": 1}}], {}],
    ["push_first", ["me", 1, "extend", ROWS, {}], {}],
    ["push_first", [CLIENT, 1, "extend", ROWS, {"with_notes": {"mine": 1}}], {}],
]
VALID_REQUESTS: list[Any] = [
    ["push_first", [CLIENT, 1, "extend", ROWS, {}], {}],
    ["push_group", [CLIENT, 2, ROWS, GROUP], {}],
    ["sample", [4], {"frames": True}],
]


def test_requests_that_no_client_makes_are_answered_with_an_error(
    service: ServiceProcess, store: Path
) -> None:
    with others_go_on(service, store):
        for request in ODD_REQUESTS:
            with contextlib.suppress(flight.FlightError):  # the stream has ended with an error
                is_done, answer = exchanged(raw(service), request)
                assert not is_done, (request, answer)
        for request in VALID_REQUESTS:  # so the others are refused for what is odd in them
            is_done, answer = exchanged(raw(service), request)
            assert is_done, (request, answer)
    with diskreplay.open(store, access="read") as buffer:
        assert "mine" not in buffer.notes()
    assert not any(entry["event"] == "failed" for entry in service.logged)


def described(packed: bytes, arrays: list[Any]) -> bytes:
    return bytes(msgpack.packb([packed, arrays]))


def nested(levels: int) -> bytes:
    """A tuple in a tuple, and so on, each as a value of its own."""
    value: bytes = msgpack.packb(None)
    for _ in range(levels):
        value = msgpack.packb(msgpack.ExtType(2, b"\x91" + value))
    return value


# Each would take the process down, or all of its time or memory.
HOSTILE_HEADERS = {
    "values in values": lambda: described(nested(300), []),
    "lists in lists": lambda: described(b"\x91" * 10_000 + b"\xc0", []),
    "many lists": lambda: described(
        b"\xdd" + (3 << 20).to_bytes(4, "big") + b"\x90" * (3 << 20), []
    ),
    "many arrays": lambda: described(b"\xc0", [["<f4", [0]]] * 100_000),
    "many dimensions": lambda: described(b"\xc0", [["<f4", [2**62] * 1000]]),
    "many fields": lambda: described(b"\xc0", [["f4," * 4000, [1]]]),
}


@pytest.mark.parametrize("kind", HOSTILE_HEADERS)
def test_a_hostile_description_ends_its_stream_alone(
    service: ServiceProcess, store: Path, kind: str
) -> None:
    with others_go_on(service, store):
        writer, reader = raw(service)
        writer.write_metadata(HOSTILE_HEADERS[kind]())
        with pytest.raises(flight.FlightError) as caught:
            receive(reader)
        assert "Traceback" not in str(caught.value)
    assert service.logged[-3]["reason"] == "malformed"


def test_only_exchanges_and_the_health_check_are_answered(
    service: ServiceProcess, store: Path
) -> None:
    path = flight.FlightDescriptor.for_path("../../etc/passwd")
    with others_go_on(service, store), flight.connect(service.url) as client:

        def put() -> None:
            writer, _ = client.do_put(path, SCHEMA)
            writer.close()

        for call in (
            put,
            lambda: [*client.list_flights()],
            lambda: client.list_actions(),
            lambda: client.do_get(flight.Ticket(b"a")).read_all(),
            lambda: client.get_schema(path),
            lambda: client.get_flight_info(path),
            lambda: [*client.do_action("stop")],
            lambda: client.authenticate_basic_token("a", "b"),
        ):
            with pytest.raises((pa.ArrowException, OSError)) as caught:
                call()
            assert "Traceback" not in str(caught.value)


def test_another_schema_is_refused(service: ServiceProcess, store: Path) -> None:
    with others_go_on(service, store) as replay:
        with pytest.raises(SchemaError, match="state"):
            replay.push(np.zeros(7), 0, 0.0, np.zeros(7), False)
        client = flight.connect(service.url)
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b""))
        other = pa.schema([("state", pa.float64()), ("more", pa.string())])
        writer.begin(other)
        writer.write_with_metadata(
            pa.record_batch([pa.array([1.0]), pa.array(["a"])], schema=other),
            b"\x92\xc4\x01\xc0\x90",
        )
        with pytest.raises(flight.FlightError, match="no column of bytes"):
            reader.read_chunk()
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b""))
        writer.begin(other)
        send(writer, ["len", [], {}])
        with pytest.raises(flight.FlightError, match="no column of bytes"):
            reader.read_chunk()


# Streams


def recorded(port: int) -> list[bytes]:
    """Return what a client sends over each of its connections."""
    recorder = Recorder(port)
    with diskreplay.connect(f"grpc://127.0.0.1:{recorder.port}") as replay:
        replay.extend(**columns(0, 200))
        replay.flush()
        batch = replay.sample(20)
        replay.update_priorities(batch.indices, np.ones(20))
        replay.get(batch.indices)
        # Before the end of the client: sent at once, its last frames would cancel the others.
        sent = [bytes(content) for content in recorder.sent if content]
    recorder.close()
    assert sum(map(len, sent)) > 5000
    return sent


def test_changed_bytes_of_valid_streams_hurt_nobody_else(
    service: ServiceProcess, store: Path, long: bool
) -> None:
    port = int(service.url.rpartition(":")[2])
    silence, sent = 0.05, recorded(port)
    # Unchanged they are answered: the server does take what is sent. How soon, it says itself; and
    # it may refuse the pings of a recording, which came apart from each other and come at once now.
    while max(send_again(port, content, silence) for content in sent) <= 1000:
        silence, sent = min(2 * silence, 1.0), recorded(port)
    rng = np.random.default_rng(0)
    with others_go_on(service, store):
        answered = [
            send_again(port, mutated(sent[rng.integers(len(sent))], rng), silence)
            for _ in range(1000 if long else 50)
        ]
        assert np.ptp(answered) > 1000
