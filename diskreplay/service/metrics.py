"""Metrics: the figures of a service, as Prometheus collects them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from diskreplay.errors import StorageError
from diskreplay.service.streams import Served

# From a batch of a warm buffer to a commit that waits for a slow disk.
_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.25, 1, 2.5, 10)


class Metrics:
    """Counters, gauges and histograms of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        one, by = self.registry, ["buffer"]
        self.batches = Counter("diskreplay_batches", "Batches and draws sent", by, registry=one)
        self.sampled = Counter("diskreplay_sampled_rows", "Rows of batches", by, registry=one)
        self.updated = Counter("diskreplay_updated_rows", "Priorities set", by, registry=one)
        self.refused = Counter("diskreplay_refused", "Calls refused", ["reason"], registry=one)
        self.calls = Gauge("diskreplay_open_calls", "Calls and streams", ["client"], registry=one)
        self._seconds = Histogram(
            "diskreplay_seconds", "Time taken", ["what"], buckets=_SECONDS, registry=one
        )
        # `labels` checks and looks up its labels under a lock at each call.
        self._of = cache(lambda metric, label: metric.labels(label))

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Measure the time of a block: push, commit, sample, update, or another call."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._of(self._seconds, what).observe(time.perf_counter() - began)

    def count(self, buffer: str, call: str, rows: int) -> None:
        """Count the rows of a call that was answered."""
        if call == "update_priorities":
            self._of(self.updated, buffer).inc(rows)
        elif call in ("sample", "sample_sequences", "draw"):
            self._of(self.batches, buffer).inc()
            self._of(self.sampled, buffer).inc(rows)

    def watch(self, served: Iterable[Served]) -> None:
        """Show the figures of replays and their groups, read when they are asked for."""
        self.registry.register(_Replays([*served]))

    @contextmanager
    def listening(self, host: str, port: int) -> Iterator[int]:
        """Answer Prometheus at http://host:port/metrics within a block, which gets the port."""
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise StorageError(
                f"metrics cannot listen on {host}:{port} ({error.strerror}): choose another "
                "address with --metrics"
            ) from None
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


_Figures = dict[str, tuple[str, Callable[[Served], int]]]
_GAUGES: _Figures = {
    "diskreplay_rows": ("Live rows", lambda one: len(one.replay)),
    "diskreplay_written_rows": ("Rows ever written", lambda one: one.replay.count),
    "diskreplay_waiting_groups": ("Groups before a commit", lambda one: one.groups.waiting),
}
_COUNTERS: _Figures = {
    "diskreplay_pushed_groups": ("Groups stored", lambda one: one.groups.stored),
    "diskreplay_pushed_rows": ("Rows stored", lambda one: one.groups.rows),
    "diskreplay_repeated_groups": ("Groups that came again", lambda one: one.groups.repeated),
    "diskreplay_commits": ("Commits of groups", lambda one: one.groups.commits),
}


class _Replays:
    """The collector of what replays hold, and of the groups that clients push to them."""

    def __init__(self, served: list[Served]) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of all replays."""
        kinds: list[Any] = [GaugeMetricFamily, CounterMetricFamily]
        for kind, known in zip(kinds, (_GAUGES, _COUNTERS), strict=True):
            for name, (text, value_of) in known.items():
                found = kind(name, text, labels=["buffer"])
                for one in self._served:
                    found.add_metric([one.name], value_of(one))
                yield found
