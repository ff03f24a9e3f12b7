"""A headless Chromium that tests open pages in. It is driven by the DevTools protocol over two pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser of this machine, None where there is none."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
)
KEYS = {"Enter": (13, "\r"), "Escape": (27, None), "Tab": (9, None), "End": (35, None), "Home": (36, None)}
KEYS |= {"ArrowLeft": (37, None), "ArrowUp": (38, None), "ArrowRight": (39, None), "ArrowDown": (40, None)}
"""A key's name -> its code, and the text that it types."""
TO_3_AND_4 = (
    "import os, sys; a, b = map(int, sys.argv[1:3]); os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)
"""A program that hands a command two open files as those that Chromium reads from and writes to."""


def _pipe() -> list[int]:
    """Both ends of a pipe, with numbers that leave 3 and 4 free."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


class Browser:
    """One tab. `with Browser(folder) as browser:` ends it. folder: for its profile, empty.

    told: what the page wrote to the console and raised, and what the browser refused it, such as a request.
    """

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        (read_there, self._write), (self._read, write_there) = _pipe(), _pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", TO_3_AND_4, str(read_there), str(write_there)),
                CHROMIUM,
                *FLAGS,
                f"--user-data-dir={folder}",
            ],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._number, self._rest, self._session = 0, b"", None
        self.told: list[str] = []
        self.requests: list[str] = []
        page = self.call("Target.createTarget", url="about:blank")  # the first tab may show the browser's own page
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, timeout: float = 120.0, **given):
        """The answer to a DevTools command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while True:
            answer = self._message(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _message(self, end: float):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            some = os.read(self._read, 1 << 20)
            assert some, "the browser has ended"
            self._rest += some
        first, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(first)
        self._hear(message.get("method"), message.get("params", {}))
        return message

    def _hear(self, method, given) -> None:
        if method == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.told.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled":
            self.told.append(" ".join(str(part.get("value", part.get("description"))) for part in given["args"]))
        elif method == "Log.entryAdded":
            self.told.append(given["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not given["request"]["url"].startswith(("data:", "chrome:")):
            self.requests.append(given["request"]["url"])

    def open(self, file: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a page at a size, pixels, and wait until it is there."""
        self.size(width, height, dark)
        self.told.clear()
        self.requests.clear()
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def size(self, width: int, height: int, dark: bool = False) -> None:
        phone = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str):
        """The value of an expression in the page; of a promise what it comes to."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str, timeout: float = 60.0) -> None:
        end = time.monotonic() + timeout
        while not self.run(condition):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        code, text = KEYS[key]
        given = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **given, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)
        self.frame()

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)
        self.frame()

    def frame(self) -> None:
        """Wait until the page has drawn what it was asked to."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def picture(self, file: Path, whole: bool = False) -> None:
        """Save what the page looks like as PNG. whole: beyond the window too."""
        given = {"captureBeyondViewport": True} if whole else {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            given["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **given)["data"]))
