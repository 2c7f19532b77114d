"""serve: a process that serves stores until it gets a signal."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import FrameType
from typing import Any

from diskreplay.aliases import PathLike
from diskreplay.buffer import open as open_buffer
from diskreplay.errors import ArgumentError
from diskreplay.limiting import RateLimited
from diskreplay.service.limits import Limits
from diskreplay.service.logs import log, log_json_lines
from diskreplay.service.rights import Tokens, is_loopback
from diskreplay.service.tls import TLS
from diskreplay.wording import shown

_METRICS_WARNING = (
    "other machines can read the figures at --metrics, and the names of stores and tokens in them, "
    "without a token: listen on 127.0.0.1 where strangers can reach this machine"
)
_PATIENCE = 30  # seconds for calls under way, after a signal


class _Signals:
    """SIGTERM and SIGINT: the first one asks the process to stop, a second one ends it."""

    def __init__(self) -> None:
        self._received: list[int] = []
        # The system may deliver a signal to any thread; written to a socket, it wakes this one.
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if len(self._received) > 1:
            # What was acknowledged is committed, and a commit under way is whole or not there.
            os._exit(128 + number)

    def wait(self) -> str:
        """Wait for a signal, and return its name."""
        while not self._received:
            self._woken.recv(1)
        return signal.Signals(self._received[0]).name


def serve_stores(
    stores: Mapping[str, PathLike],
    address: str,
    *,
    tokens: PathLike | None,
    tls: tuple[PathLike | None, PathLike | None, PathLike | None],
    insecure: bool,
    limits: Limits,
    rate: Mapping[str, Any],
    metrics: str | None,
    started: Callable[[str], object],
) -> None:
    """Serve stores by name, until SIGTERM or SIGINT; call it in the main thread.

    After the signal no call begins, those under way end, everything is committed and the stores are
    closed. A second signal ends the process at once, without a loss of acknowledged rows.

    It needs pyarrow and prometheus_client.

    tokens:   the tokens file
    tls:      the files of the certificate, of its key, and of the authority of clients
    rate:     arguments of RateLimited, for each store; none where nothing is limited
    metrics:  HOST:PORT, at which Prometheus finds figures
    started:  is called with the URL when clients can connect
    """
    # gRPC's own lines would stand between the JSON lines; calls that fail say the same.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from diskreplay.service.metrics import Metrics
    from diskreplay.service.server import ReplayServer

    log_json_lines()
    _allow_files(limits)
    signals, figures = _Signals(), Metrics()
    known = Tokens.read(tokens) if tokens is not None else None
    certificate = _tls(*tls)
    at = _host_and_port(metrics) if metrics is not None else None
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = _log_warning
        buffers: dict[str, Any] = {
            name: stack.enter_context(_limited(open_buffer(path), rate))
            for name, path in stores.items()
        }
        server = ReplayServer(
            buffers,
            address,
            tokens=known,
            tls=certificate,
            insecure=insecure,
            limits=limits,
            metrics=figures,
        )
        stack.callback(server.close)
        facts: dict[str, Any] = {}
        if at is not None:
            port = stack.enter_context(figures.listening(*at))
            facts = {"metrics": f"http://{at[0]}:{port}/metrics"}
            if not is_loopback(at[0]):
                log("warning", logging.WARNING, warning=_METRICS_WARNING)
        log("serving", url=server.url, replays=sorted(buffers), pid=os.getpid(), **facts)
        started(server.url)
        log("stopping", signal=signals.wait())
        left = server.drain(_PATIENCE)
    log("stopped", calls_left=left)


def _limited(buffer: Any, rate: Mapping[str, Any]) -> Any:
    """Return a buffer with the limits of a rate, if there are any; close it if they cannot be."""
    try:
        return RateLimited(buffer, **rate) if rate else buffer
    except BaseException:
        buffer.close()
        raise


def _allow_files(limits: Limits) -> None:
    """Raise the limit of open files, as far as the system lets us, so that connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * limits.calls + 1024
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _log_warning(message: Warning | str, *_: object, **__: object) -> None:
    log("warning", logging.WARNING, warning=str(message))


def _tls(
    certificate: PathLike | None, key: PathLike | None, client_authority: PathLike | None
) -> TLS | None:
    if certificate is not None and key is not None:
        return TLS.read(certificate, key, client_authority)
    if certificate is key is client_authority is None:
        return None
    raise ArgumentError("TLS needs a certificate and its key: give both --tls-cert and --tls-key")


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ArgumentError(f"an address is HOST:PORT, as 127.0.0.1:9100 (found {shown(text)})")
    return host.strip("[]"), int(port)
