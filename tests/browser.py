"""Chromium without a window, driven by keys alone, over the pipe of its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.needs import PATIENCE_S, missing

KEYS = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), " ": ("Space", 32, " ")}


class Browser:
    """One browser with one page; closed at the end of the context.

    Args:
        folder: for its profile.
        size: of the window, in pixels.
    """

    def __init__(self, folder: Path, *, size: tuple[int, int] = (1100, 1400)) -> None:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        if found is None:
            missing("chromium", "chromium")
        to, self._to = os.pipe()
        self._from, back = os.pipe()
        # Numbers above 4, so that 3 and 4 can be given in the child.
        given = [fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (to, back)]
        command = [
            found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={size[0]},{size[1]}", "--remote-debugging-pipe",
        ]  # fmt: skip

        def take() -> None:
            os.dup2(given[0], 3)
            os.dup2(given[1], 4)

        self._process = subprocess.Popen(
            command, preexec_fn=take, pass_fds=(3, 4), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for one in (to, back, *given):
            os.close(one)
        self._read, self._numbers = b"", itertools.count(1)
        self._events: deque[str] = deque()
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def go(self, address: str) -> None:
        """Open a page and wait until it is there."""
        self._events.clear()
        self.call("Page.navigate", url=address)
        self._loaded()

    def press(self, key: str, *, leads_on: bool = False) -> None:
        """Press a key; ``leads_on``: it opens another page, which is waited for."""
        code, number, text = KEYS[key]
        about = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self._events.clear()
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **down, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)
        if leads_on:
            self._loaded()

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def type_letter(self, letter: str) -> None:
        """Press the key of a letter, which chooses in a list."""
        about = {"key": letter, "code": f"Key{letter.upper()}", "text": letter,
                 "windowsVirtualKeyCode": ord(letter.upper())}  # fmt: skip
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about | {"text": ""})

    def wait_until(self, condition: str) -> None:
        """Wait until a page, which asks again by itself, fulfils a condition."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            with suppress(RuntimeError):  # the page is just another one
                if self.run(f"document.readyState === 'complete' && {condition}"):
                    return
            time.sleep(0.2)
        raise AssertionError(self.run("document.body.innerText"))

    def run(self, expression: str) -> Any:
        """Return what JavaScript of ours finds in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def focused(self) -> str:
        """Return what has the focus: its label, text or name."""
        return self.run(
            "(e => e.labels && e.labels.length ? e.labels[0].innerText.trim()"
            " : (e.innerText || e.id || e.tagName).trim())(document.activeElement)"
        )

    def tab_to(self, words: str, most: int = 60) -> None:
        """Press Tab until what has the focus says so."""
        seen = []
        for _ in range(most):
            self.press("Tab")
            seen.append(self.focused())
            if seen[-1].startswith(words):
                return
        raise AssertionError(f"{words!r} is not reached by Tab, but {seen}")

    def accessible(self) -> list[dict[str, Any]]:
        """Return what a screen reader is given: role, name and properties of each node."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            {
                "role": node.get("role", {}).get("value", ""),
                "name": node.get("name", {}).get("value", ""),
                **{p["name"]: p["value"].get("value") for p in node.get("properties", ())},
            }
            for node in nodes
            if not node["ignored"]
        ]

    def picture(self, file: Path) -> None:
        """Save the whole page as PNG."""
        height = int(self.run("document.documentElement.scrollHeight"))
        width = int(self.run("document.documentElement.clientWidth"))
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(taken["data"]))

    def _loaded(self) -> None:
        while "Page.loadEventFired" not in self._events:
            self._next()

    def _next(self) -> dict[str, Any]:
        ends = time.monotonic() + PATIENCE_S
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], max(0, ends - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "the browser ended"
            self._read += part
        line, _, self._read = self._read.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self._events.append(message["method"])
        return message
