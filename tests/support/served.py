"""A buffer behind a server in threads of this process, and a client of it."""

from __future__ import annotations

from typing import Any

import diskreplay
from diskreplay.service.server import ReplayServer


def served(buffer: Any) -> Any:
    """Return a client of a buffer; when it is closed, so are the server and the buffer."""
    server = ReplayServer({"b": buffer})
    try:
        replay = diskreplay.connect(server.url, timeout=20.0)
    except BaseException:
        server.close()
        buffer.close()
        raise
    close = replay.close

    def close_all() -> None:
        try:
            close()
        finally:
            server.close()
            buffer.close()

    replay.close = close_all
    return replay
