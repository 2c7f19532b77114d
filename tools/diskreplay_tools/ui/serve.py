"""The server of the page: its address, and its end."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from diskreplay_tools.extras import needed
from diskreplay_tools.ui.guarding import LOOPBACK, OwnPagesOnly, is_loopback
from diskreplay_tools.ui.monitor import Monitor
from diskreplay_tools.ui.source import Source


def serve_page(
    target: str, token_file: Path | None, host: str, port: int, started: Callable[[], None]
) -> None:
    """Serve the page about a replay until SIGINT or SIGTERM.

    started:  called once it answers
    """
    with tempfile.TemporaryDirectory(prefix="diskreplay-ui-") as place:
        os.environ.setdefault(
            "NICEGUI_STORAGE_PATH", place
        )  # else it is .nicegui in this directory
        nicegui = needed("nicegui", "ui", "the page")
        # Only now, as it imports nicegui, which not everybody has installed.
        from diskreplay_tools.ui.page import ReplayPage

        source = Source(target, token_file)
        monitor = Monitor(source)
        page = ReplayPage(monitor)
        nicegui.ui.page("/", title="diskreplay", dark=None)(page.build)
        hosts = (*LOOPBACK, host) if is_loopback(host) else None
        nicegui.app.add_middleware(OwnPagesOnly, hosts=hosts)

        async def tell_when_started() -> None:
            while not server.instance.started:  # the startup of the app comes before the listening
                await asyncio.sleep(0.02)
            started()

        server = needed("nicegui.server", "ui", "the page").Server
        nicegui.app.on_startup(lambda: nicegui.background_tasks.create(tell_when_started()))
        nicegui.app.timer(1.0, page.look)
        nicegui.app.on_shutdown(source.close)  # a SIGTERM ends the process after that
        nicegui.ui.run(
            host=host,
            port=port,
            title="diskreplay",
            favicon=_ICON,
            reload=False,
            show=False,
            show_welcome_message=False,
            uvicorn_logging_level="error",
            binding_refresh_interval=None,
            message_history_length=30,  # for a browser that comes back; messages have images
        )


_ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'>"
    "<circle cx='12' cy='12' r='10' fill='#3b82f6'/>"
    "<path d='M9 7l8 5-8 5z' fill='#fff'/></svg>"
)
