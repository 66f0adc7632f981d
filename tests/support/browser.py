"""A real, headless Chromium, driven over its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/, by pipe: nothing to
install but the browser itself.
"""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root may not use
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class Page:
    """One page of a browser.

    Attributes:
        requests: Addresses that pages asked for.
        complaints: What was said on the console, and errors.
    """

    def __init__(self, reading, writing):
        self._reading, self._writing = reading, writing
        self._count, self._rest, self._session = 0, b"", None
        self._events = []
        self.requests, self.complaints = [], []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self(
            "Target.attachToTarget", targetId=target, flatten=True
        )["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        """Returns the result of a command."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, address, width=1200, height=900, dark=False):
        """Loads a page, and returns when that is done."""
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = "dark" if dark else "light"
        self(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self._events.clear()
        assert "errorText" not in self("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._receive()

    def value(self, expression):
        """Returns what a JavaScript expression comes to."""
        result = self(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def point_at(self, selector, click=False):
        """Moves the pointer onto the middle of an element, and may click."""
        x, y = self.value(
            f"(async () => {{ const e = document.querySelector({selector!r});"
            "e.scrollIntoView({block: 'center'});"
            # A frame is drawn, and what is scrolled is where it will be.
            "for (let i = 0; i < 2; ++i)"
            "    await new Promise(done => requestAnimationFrame(done));"
            "const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        kinds = ["mouseMoved", *["mousePressed", "mouseReleased"] * click]
        for kind in kinds:
            self(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left" if click else "none",
                clickCount=int(click),
            )

    def shoot(self, path, whole=False):
        """Writes what the page looks like."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=whole)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))

    def _receive(self):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], 60)
            more = os.read(self._reading, 1 << 20) if ready else b""
            assert more, "the browser is silent, or gone"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self._note(message["method"], message["params"])
        return message

    def _note(self, method, params):
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ):
            self.complaints.append(params)


def find():
    """Returns the browser, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def started(program):
    """Starts a browser, and ends it."""
    to_it, from_us = os.pipe()
    from_it, to_us = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # It reads descriptor 3 and writes descriptor 4; bash can name any.
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{to_it} 4>&{to_us}', program]
            + [*_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_it, to_us),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(to_us)
        try:
            shown = Page(from_it, from_us)
            yield shown
            shown("Browser.close")
            process.wait(60)
        finally:
            process.kill()
            process.wait()
            os.close(from_us)
            os.close(from_it)


@pytest.fixture(scope="module")
def page():
    """A page of a real browser; skips, and says so, where there is none."""
    program = find()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    with started(program) as shown:
        yield shown
