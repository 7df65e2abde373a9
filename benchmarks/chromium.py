"""Drives a headless Chromium through its debugging pipe: enough to try a page as a reader would."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any, Self

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 60.0


class Page:
    """A page in a browser of its own.

    Attributes:
        requests: Addresses that the page asked for.
        errors: What its scripts complained of.
    """

    def __init__(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        program = next(filter(None, map(shutil.which, _NAMES)), None)
        if program is None:
            raise FileNotFoundError(f"none of {', '.join(_NAMES)} is installed")
        # Its children write there for a moment after it has ended.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read_end, self._out = os.pipe()
        self._in, write_end = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4.
        shell = f'exec "$@" 3<&{read_end} 4>&{write_end}'
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        flags += [f"--user-data-dir={self._folder.name}", "--hide-scrollbars", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", program, *flags],
            pass_fds=(read_end, write_end),
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        self._file = os.fdopen(self._in, "rb", buffering=0)
        self._buffer, self._number = b"", 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for name in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{name}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._out)
        self._file.close()
        self._folder.cleanup()

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]
            self._note(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            self._buffer += self._file.read(1 << 16)
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, said = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(said["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"]["text"])

    def open(self, path: pathlib.Path) -> None:
        """Opens a file.

        Args:
            path: The page.
        """
        self._call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def before_scripts(self, script: str) -> None:
        """Runs JavaScript in every page that is opened, before its own.

        Args:
            script: The script.
        """
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def run(self, script: str) -> Any:
        """Evaluates JavaScript in the page.

        Args:
            script: An expression; promises are awaited.

        Returns:
            Its value.
        """
        found = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:500])
        return found["result"].get("value")

    def wait(self, script: str) -> float:
        """Waits until an expression is true.

        Args:
            script: The expression.

        Returns:
            Seconds that it took.
        """
        begin = time.monotonic()
        while not self.run(script):
            if time.monotonic() - begin > _SECONDS:
                raise TimeoutError(f"{script}; {self.errors}")
            time.sleep(0.02)
        return time.monotonic() - begin

    def mouse(self, x: float, y: float, kind: str = "mouseMoved", **more: Any) -> None:
        """Moves the mouse, or clicks.

        Args:
            x: From the left of the window, pixels.
            y: From its top.
            kind: "mouseMoved", "mousePressed" or "mouseReleased".
            **more: As the protocol has it.
        """
        self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        """Clicks.

        Args:
            x: From the left of the window, pixels.
            y: From its top.
        """
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(x, y, kind, button="left", clickCount=1)

    def picture(self, path: pathlib.Path, *, whole: bool = True) -> None:
        """Writes what the page looks like.

        Args:
            path: A PNG file.
            whole: The whole page, or the window.
        """
        found = self._call(
            "Page.captureScreenshot",
            captureBeyondViewport=whole,
            **({"clip": self._whole()} if whole else {}),
        )
        path.write_bytes(base64.b64decode(found["data"]))

    def _whole(self) -> dict[str, float]:
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
