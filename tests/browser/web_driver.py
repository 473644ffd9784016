"""A headless Chromium, as much of WebDriver as the tests need."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from evidence import in_time

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
WIDE, PHONE = 1280, 390


class Browser:
    def __init__(self, port: int, profile: Path) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False)
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        logs = {"goog:loggingPrefs": {"browser": "ALL"}}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options, **logs}}}
        self._session = f"/session/{self._post('/session', wanted)['sessionId']}"

    def _post(self, path: str, body: Any) -> Any:
        answer = self._http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def close(self) -> None:
        self._http.delete(self._session)
        self._http.close()

    def open(self, url: str) -> None:
        self._post(f"{self._session}/url", {"url": url})

    def run(self, script: str, *values: Any) -> Any:
        return self._post(f"{self._session}/execute/sync", {"script": script, "args": list(values)})

    @property
    def address(self) -> str:
        return str(self.run("return location.href"))

    @property
    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def _element(self, css: str) -> str:
        found = self._post(f"{self._session}/element", {"using": "css selector", "value": css})
        return f"{self._session}/element/{next(iter(found.values()))}"

    def click(self, css: str) -> None:
        """Press it as a person does: it must be visible, and nothing may cover it."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", css)
        self._post(f"{self._element(css)}/click", {})

    def type(self, css: str, text: str) -> None:
        self._post(f"{self._element(css)}/value", {"text": text})

    def wait(self, script: str, *values: Any, within: float = 60) -> Any:
        """What a script returns, as soon as that is something."""
        began = time.monotonic()
        while time.monotonic() - began < in_time(within):
            if found := self.run(script, *values):
                return found
            time.sleep(0.1)
        raise AssertionError(f"waited in vain for {script!r} on {self.address}: {self.text[:500]}")

    def complaints(self) -> list[str]:
        """Errors in the console since the last call."""
        entries = self._post(f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def width(self, pixels: int, *, height: int = 900) -> None:
        self._devtools("Emulation.setDeviceMetricsOverride",
                       width=pixels, height=height, deviceScaleFactor=1, mobile=pixels < 600)  # fmt: skip

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A screenshot, of the whole page unless told otherwise."""
        shot = self._devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def overflows(self) -> bool:
        """Whether the page is wider than the window, so that a phone scrolls sideways."""
        return bool(self.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def _devtools(self, command: str, **parameters: Any) -> Any:
        return self._post(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        browser = Browser(int(line.rsplit(" ", 1)[1].strip(" .\n")), profile)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait()
        driver.stdout.close()
