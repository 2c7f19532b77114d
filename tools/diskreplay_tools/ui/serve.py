"""The server of the page, and its end: SIGINT and SIGTERM end it at any moment, and soon."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from socket import socket, socketpair

from diskreplay_tools.extras import needed
from diskreplay_tools.stores import Target
from diskreplay_tools.ui.guarding import LOOPBACK, OwnPagesOnly, is_loopback
from diskreplay_tools.ui.monitor import Monitor
from diskreplay_tools.ui.source import Source


def serve_page(target: Target, host: str, listening: socket, started: Callable[[], None]) -> int:
    """Serve the page about a replay until SIGINT or SIGTERM, and return which of them came.

    Call it in the main thread, and end the process after it without waiting for threads: those of
    the server go on, with pages that load or wait. They change nothing that a last step of theirs
    would have to bring to an end. Signals that come later do nothing.

    listening:  a socket that listens at the host
    started:    called when the page is served
    """
    source = Source(target)
    # Else it is .nicegui in this directory.
    with tempfile.TemporaryDirectory(prefix="diskreplay-ui-", ignore_cleanup_errors=True) as place:
        os.environ.setdefault("NICEGUI_STORAGE_PATH", place)
        try:
            return _until_signal(lambda: _serve(source, host, listening, started))
        finally:
            source.close()


def _until_signal(work: Callable[[], None]) -> int:
    """Return the signal that comes while a thread works; raise the error that ends its work."""
    received: list[int] = []
    errors: list[BaseException] = []
    # The system may deliver a signal to any thread. Written to a socket it wakes this one, in which
    # its handler runs: it interrupts none of the others, whatever they do at that moment.
    woken, wakes = socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, frame: received.append(number))

    def do() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
            wakes.send(b"\0")

    threading.Thread(target=do, name="page", daemon=True).start()
    while not received and not errors:
        woken.recv(1)
    if errors:
        raise errors[0]
    return received[0]


def _serve(source: Source, host: str, listening: socket, started: Callable[[], None]) -> None:
    """Serve the page; it ends with an error alone."""
    source.read(lambda replay: None)  # raises where there is none
    nicegui = needed("nicegui", "ui", "the page")
    # Only now, as they need nicegui, which not everybody has installed.
    import fastapi
    import uvicorn

    from diskreplay_tools.ui.page import ReplayPage

    # NiceGUI makes a pool of processes, which is never used. By another method its semaphores would
    # have names, and a process that tells of those that are left.
    multiprocessing.set_start_method("fork", force=True)
    page = ReplayPage(Monitor(source))
    nicegui.ui.page("/", title="diskreplay", dark=None)(page.build)
    nicegui.app.on_startup(started)
    nicegui.app.timer(1.0, page.look)
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    nicegui.ui.run_with(
        app,
        title="diskreplay",
        favicon=_ICON,
        show_welcome_message=False,
        binding_refresh_interval=None,
        reconnect_timeout=30.0,  # later, a browser that was away loads the page anew
        message_history_length=30,  # for a browser that comes back; messages have images
    )
    hosts = (*LOOPBACK, host) if is_loopback(host) else None
    app.add_middleware(OwnPagesOnly, hosts=hosts)
    uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on")).run([listening])


_ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'>"
    "<circle cx='12' cy='12' r='10' fill='#3b82f6'/>"
    "<path d='M9 7l8 5-8 5z' fill='#fff'/></svg>"
)
