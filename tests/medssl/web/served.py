"""A running server, as tests see it."""

import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from medssl.web.queue import Queue
from medssl.web.results import Results

SOON = 60.0  # seconds that a test waits for what takes a few


@dataclass
class Served:
    """A running server: how to reach it, and what lies behind."""

    port: int
    queue: Queue
    results: Results

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=SOON, trust_env=False, verify=False)  # no certificates to load

    def done(self, image: Path, model: str, name: str | None = None) -> dict[str, object]:
        """Send an image and give the answer once it has ended."""
        with self.client() as client:
            sent = client.post("/api/predict", files={"image": (name or image.name, image.read_bytes())}, data={"model": model})
            assert sent.status_code == 202, sent.text
            answer = client.get(sent.json()["result"], params={"wait": 30})
            found: dict[str, object] = answer.json()
            assert answer.status_code == 200, answer.text
            return found

    def idle(self) -> None:
        """Wait until no place is taken."""
        end = time.monotonic() + SOON
        while self.queue.taken and time.monotonic() < end:
            time.sleep(0.01)
        assert self.queue.taken == 0
