"""Metrics: the figures of a service, as Prometheus collects them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily

from diskreplay.errors import StorageError
from diskreplay.protocols import Replay

# From a batch of a warm buffer to a commit that waits for a slow disk.
_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.25, 1, 2.5, 10)


class Metrics:
    """Counters, gauges and histograms of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        one, by = self.registry, ["buffer"]
        self.groups = Counter("diskreplay_pushed_groups", "Groups stored", by, registry=one)
        self.rows = Counter("diskreplay_pushed_rows", "Rows stored", by, registry=one)
        self.repeated = Counter(
            "diskreplay_repeated_groups", "Groups sent again, stored before", by, registry=one
        )
        self.batches = Counter("diskreplay_batches", "Batches and draws sent", by, registry=one)
        self.sampled = Counter("diskreplay_sampled_rows", "Rows of batches", by, registry=one)
        self.updated = Counter("diskreplay_updated_rows", "Priorities set", by, registry=one)
        self.commits = Counter("diskreplay_commits", "Commits of groups", by, registry=one)
        self.refused = Counter("diskreplay_refused", "Calls refused", ["reason"], registry=one)
        self.waiting = Gauge("diskreplay_waiting_groups", "Before a commit", by, registry=one)
        self.calls = Gauge("diskreplay_open_calls", "Calls and streams", ["client"], registry=one)
        self._seconds = Histogram(
            "diskreplay_seconds", "Time taken", ["what"], buckets=_SECONDS, registry=one
        )

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Measure the time of a block: push, commit, sample, update, or another call."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(what).observe(time.perf_counter() - began)

    def count(self, buffer: str, call: str, rows: int) -> None:
        """Count the rows of a call that was answered."""
        if call in ("push_group", "push_first"):
            self.groups.labels(buffer).inc()
            self.rows.labels(buffer).inc(rows)
        elif call == "update_priorities":
            self.updated.labels(buffer).inc(rows)
        elif call in ("sample", "sample_sequences", "frames_batch", "draw"):
            self.batches.labels(buffer).inc()
            self.sampled.labels(buffer).inc(rows)

    def watch(self, buffers: Mapping[str, Replay[object]]) -> None:
        """Show the sizes of buffers, read when they are asked for."""
        self.registry.register(_Sizes(buffers))

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


class _Sizes:
    """The collector of what buffers hold."""

    def __init__(self, buffers: Mapping[str, Replay[object]]) -> None:
        self._buffers = buffers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges of all buffers."""
        size = GaugeMetricFamily("diskreplay_rows", "Live rows", labels=["buffer"])
        count = GaugeMetricFamily("diskreplay_written_rows", "Rows ever written", labels=["buffer"])
        for name, buffer in self._buffers.items():
            size.add_metric([name], len(buffer))
            count.add_metric([name], buffer.count)
        yield size
        yield count
