"""A headless Chromium that is asked over a pipe, by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

BINARIES = ("chromium", "chromium-browser", "google-chrome")
BINARY = next(filter(None, map(shutil.which, BINARIES)), None)
PATIENCE = 60  # seconds, for one answer

# The browser reads descriptor 3 and writes 4, whatever they are here.
START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One tab. `requests` are the addresses that it asked for, but for what a page holds itself."""

    def __init__(self, profile: Path) -> None:
        assert BINARY is not None
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        command = [
            BINARY, "--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}",
            "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-extensions",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),  # which root cannot have
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(to_read), str(to_write), *command],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._heard = b""
        self._calls = 0
        self._session: str | None = None
        self._events: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._calls += 1
        message: dict[str, Any] = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while (answer := self._hear()).get("id") != self._calls:
            pass
        assert "error" not in answer, (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    def show(self, page: Path | str, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file or an address on a screen of a size, and wait until all of it is there."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self.requests.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._hear()
        loaded = "Promise.all([...document.images].map(i => i.decode().catch(() => 0)))"
        self.value(f"{loaded}.then(() => 1)")

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true in the page."""
        text = json.dumps(f"never true: {condition}")
        self.value(
            "new Promise((done, fail) => { let left = 600; const at = setInterval(() => {"
            f"if ({condition}) {{ clearInterval(at); done(1); }}"
            f"else if (!--left) {{ clearInterval(at); fail({text}); }} }}, 50); }})"
        )

    def screenshot(self) -> bytes:
        """Return the whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        """End the browser and all its processes."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(PATIENCE)
        os.close(self._to)
        os.close(self._from)

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._heard:
            assert select.select([self._from], [], [], PATIENCE)[0], "the browser does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, f"the browser ended, with status {self._process.wait(PATIENCE)}"
            self._heard += data
        data, _, self._heard = self._heard.partition(b"\0")
        message: dict[str, Any] = json.loads(data)
        if method := message.get("method"):
            self._events.append(method)
            if method == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                self.requests += [] if url.startswith("data:") else [url]
        return message
