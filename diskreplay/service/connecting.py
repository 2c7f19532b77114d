"""connect: a replay on a server, as a Replay of this process."""

from __future__ import annotations

from typing import Any

from diskreplay.aliases import PathLike

_QUEUE_BYTES = 2**26


def connect(
    url: str,
    *,
    token: str | None = None,
    timeout: float = 30.0,
    queue_bytes: int = _QUEUE_BYTES,
    ca: PathLike | None = None,
    cert: tuple[PathLike, PathLike] | None = None,
) -> Any:
    """Return a replay on a server: the same methods as of a buffer, over a connection.

    A RemotePrioritizedReplayBuffer if the served buffer is prioritized, else a RemoteReplayBuffer.
    `push` and `extend` check the rows at once, with the errors of a buffer, and return -1: a thread
    sends the rows, and the server's commit gives the write ids. `flush` returns when all of them
    are committed. A server that restarts is connected to again, and rows that it did not
    acknowledge are sent again; each is stored once. Pickling sends the URL, so that another process
    has a connection of its own; a forked child cannot use this one.

    A batch has the arrays of the served buffer's `sample`, in memory of this process. A call takes
    a round trip of the network more than the buffer's; batches(n, prefetch=k) hides it.

    Raises ArgumentError for a URL, a token or a file that cannot be one, and for a name that the
    server does not have; StorageError for a file that cannot be read; NotAllowedError for a token
    that the server does not know; ServiceError where it does not answer in time, and at once where
    its certificate does not fit.

    >>> from diskreplay import ReplayBuffer, connect
    >>> from diskreplay.service.server import ReplayServer
    >>> buffer = ReplayBuffer(capacity=100)
    >>> with ReplayServer({"main": buffer}) as server, connect(server.url) as replay:
    ...     for i in range(10):
    ...         _ = replay.push([i, 0.5], 0, 1.0, [i + 1, 0.5], False)
    ...     replay.flush()
    ...     batch = replay.sample(4)
    >>> batch.states.shape, batch.rewards.dtype
    ((4, 2), dtype('float32'))

    url:          grpc://HOST:PORT/NAME, grpc+tls://HOST:PORT/NAME or
                  grpc+unix:///PATH.sock?name=NAME; without NAME where a server has one buffer
    token:        what the server knows this client by, if it asks
    timeout:      the seconds that a call waits for a server that cannot be reached or that answers
                  nothing, not even whether it is alive, before it raises ServiceError; inf waits
                  for ever
    queue_bytes:  the most bytes of rows that wait for the server; then `push` waits
    ca:           a file with the certificates of those who sign servers, in PEM; by default those
                  that gRPC knows
    cert:         the files of a certificate of this client and its private key, in PEM, where the
                  server asks for one; ca and cert are for grpc+tls:// alone
    """
    try:
        from diskreplay.service.client import connected
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "pyarrow":
            raise
        raise ModuleNotFoundError(
            "diskreplay.connect needs pyarrow, which is not installed: "
            'pip install "diskreplay[service]"',
            name="pyarrow",
        ) from None
    return connected(url, token, timeout, queue_bytes, ca, cert)
