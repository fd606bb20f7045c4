"""A headless Chromium, driven by the DevTools protocol over two pipes: no driver and no port.

Protocol: https://chromedevtools.github.io/devtools-protocol
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOON = 60.0  # seconds; software drawing of WebGL on a busy core takes its time
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--remote-debugging-pipe",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip


def find_chromium() -> str | None:
    """The browser of this machine, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page. Everything that the page asks for is kept in `requests`, what it complains of in `faults`."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.downloads: dict[str, str] = {}  # by guid: the name that the page suggests
        self.folder, self.number, self.session, self.buffer = folder, 0, "", b""
        (folder / "downloads").mkdir(parents=True)
        ours, theirs = os.pipe(), os.pipe()  # what the browser reads, what it writes
        command = [str(find_chromium()), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        shell = ["bash", "-c", f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}', "chromium", *command]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            shell, pass_fds=(ours[0], theirs[1]), stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.to, self.back = ours[1], theirs[0]
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")
        self.call(
            "Browser.setDownloadBehavior", behavior="allowAndName", downloadPath=str(folder / "downloads"), eventsEnabled=True
        )

    def close(self) -> None:
        os.close(self.to)
        os.close(self.back)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def call(self, method: str, **words: Any) -> dict[str, Any]:
        """Ask the browser for something and give its answer."""
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": words}
        if self.session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read(SOON)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                found: dict[str, Any] = answer["result"]
                return found

    def read(self, seconds: float) -> dict[str, Any]:
        """The next message; events are noted here."""
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.back], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser says nothing"
            piece = os.read(self.back, 2**20)
            assert piece, "the browser ended"
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self.note(message.get("method", ""), message.get("params", {}))
        return message

    def note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(told["exceptionDetails"])[:500])
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.faults.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.faults.append(json.dumps(told["args"])[:500])
        elif event == "Browser.downloadWillBegin":
            self.downloads[told["guid"]] = told["suggestedFilename"]

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until an expression is true, and give its value."""
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            if found := self.evaluate(script):
                return found
            self.evaluate("new Promise((done) => setTimeout(done, 50))")
        raise AssertionError(f"never true: {script}; {self.evaluate('document.body.innerText')}; {self.faults}")

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone
        )
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def choose(self, selector: str, path: Path) -> None:
        """Put a file into a file field, as a person does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def key(self, key: str, code: int = 0, modifiers: int = 0) -> None:
        """Press a key."""
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            words = {"type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
            self.call("Input.dispatchKeyEvent", **words, **(text if kind == "keyDown" else {}))

    def downloaded(self, click: Callable[[], Any]) -> tuple[str, bytes]:
        """The name and the bytes of the file that a click saves."""
        before = set(self.downloads)
        click()
        self.wait(lambda: bool(set(self.downloads) - before))
        (guid,) = set(self.downloads) - before
        path = self.folder / "downloads" / guid
        self.wait(path.is_file)
        return self.downloads[guid], path.read_bytes()

    def wait(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + SOON
        while not true():
            assert time.monotonic() < end, "never true"
            self.evaluate("new Promise((done) => setTimeout(done, 50))")

    def picture(self, path: Path, whole: bool = True) -> Path:
        """A screenshot, of the whole page unless told otherwise."""
        told = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))
        return path
