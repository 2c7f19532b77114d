"""Service: replays on a server, and clients that are a Replay themselves. Needs Arrow Flight.

Names::

    connect(url)     a client: RemoteReplayBuffer or RemotePrioritizedReplayBuffer
    ReplayServer     serves replays by name (server.py); calls.py lists what a client may call
    message          a value of Python with arrays, as Arrow record batches of bytes (messages.py)
    channel          a stream of requests and answers in turns; each thread of a client has one
    watch            ends the waiting for a server that answers nothing
    outbox           the rows of a client that are not committed yet, and the thread that sends them
    group            rows that travel together: of one client, and numbered

Invariants:

1. A group is acknowledged after the commit that holds its rows, never before.
2. A group is stored once: a client sends it again until it is acknowledged, and the server knows
   the number of the last group of each client by a note in the commit of its rows (groups.py).
3. A client drops no row silently: the rows wait in its outbox, or an error counts them.
4. A row travels as bytes of arrays, never as an object of its own; nothing is pickled.
5. A batch is the very batch of the served replay, bit for bit, in fresh arrays of the client.
6. An error of the served replay is raised by the client as the same class with the same sentence.
"""

from __future__ import annotations

from diskreplay.service.connecting import connect
from diskreplay.service.limits import Limits
from diskreplay.service.rights import RIGHTS, add_token
from diskreplay.service.serve import serve_stores

__all__ = ["RIGHTS", "Limits", "add_token", "connect", "serve_stores"]
