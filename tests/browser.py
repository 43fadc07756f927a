"""A headless Chromium for tests that look at pages."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")


class Browser:
    """A headless Chromium, driven by the DevTools protocol over two pipes (its descriptors 3 and
    4).
    """

    def __init__(self, profile: Path) -> None:
        self.reading, theirs_out = os.pipe()
        theirs_in, self.writing = os.pipe()
        start = (
            "import os, sys\nfirst, second = int(sys.argv[1]), int(sys.argv[2])\n"
            "first, second = os.dup(first), os.dup(second)\nos.dup2(first, 3), os.dup2(second, 4)\n"
            "os.set_inheritable(3, True), os.set_inheritable(4, True)\nos.execvp(sys.argv[3], "
            "sys.argv[3:])"
        )
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--window-size=1160,1000",
        ]
        command = [CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", start, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in), os.close(theirs_out)
        self.buffer, self.events, self.number, self.session = b"", [], 0, None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while (found := self._next()).get("id") != self.number:
            self.events.append(found)
        assert "error" not in found, found
        return found["result"]

    def _next(self) -> dict:
        while b"\0" not in self.buffer:
            part = os.read(self.reading, 1 << 20)
            assert part, "the browser has gone"
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path) -> None:
        seen = len(self.events)
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events[seen:]):
            self.events.append(self._next())

    def run(self, script: str):
        """Value of the script, once it settles; what it throws fails the test."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, selector: str) -> None:
        """A click as a user makes it, without which browsers play nothing."""
        self.call(
            "Runtime.evaluate",
            expression=f"document.querySelector('{selector}').click()",
            userGesture=True,
        )

    def wait_for(self, condition: str):
        """Value of the expression as soon as it is true; the browser looks again at every frame,
        for 20 seconds.
        """
        return self.run(
            f"new Promise((done, fail) => {{ const end = Date.now() + 20000; (function look() {{ "
            f"const found = {condition}; if (found) done(found); else if (Date.now() > end) "
            "fail('not so'); "
            f"else requestAnimationFrame(look); }})(); }})"
        )

    def requests(self) -> list[str]:
        sent = [
            event for event in self.events if event.get("method") == "Network.requestWillBeSent"
        ]
        return [event["params"]["request"]["url"] for event in sent]

    def errors(self) -> list[dict]:
        return [event for event in self.events if event.get("method") == "Runtime.exceptionThrown"]

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self.session = None
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        os.close(self.writing), os.close(self.reading)
        self.process.wait(timeout=30)
