"""A server in this process, with a network for pictures and one for volumes."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from trained_runs import classifier, organs, segmenter, trained

from medssl.prediction.model import load_models
from medssl.web.api import Service, application
from medssl.web.connections import listening, server
from medssl.web.guard import LOCAL, Guard
from medssl.web.limits import Limits
from medssl.web.queue import Queue, Work
from medssl.web.results import Results
from medssl.web.work import worker

__all__ = ["classifier", "organs", "segmenter", "trained"]
SOON = 60.0  # seconds that a test waits for what takes a few


@dataclass
class Served:
    """A running server: how to reach it, and what lies behind."""

    port: int
    queue: Queue
    results: Results
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        self.clients.append(httpx.Client(base_url=self.url, timeout=SOON, trust_env=False))
        return self.clients[-1]

    def done(self, image: Path, model: str, name: str | None = None) -> dict[str, object]:
        """Send an image and give the answer once it has ended."""
        with httpx.Client(base_url=self.url, timeout=SOON, trust_env=False) as client:
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


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Start servers, by their limits and networks or the work in place of predicting; end them afterwards."""
    running = []

    def serve(
        runs: dict[str, Path], limits: Limits, token: str | None = None, works: list[Work] | None = None, strict: bool = True
    ) -> Served:
        slots = [{name: load_models([run], "cpu", 1) for name, run in runs.items()} for _ in range(limits.slots)]
        results = Results(tmp_path_factory.mktemp("served"), limits)
        queue = Queue(works or [worker(models, limits) for models in slots], limits)
        app = application(Service(slots[0], limits, queue, results))
        socket = listening("127.0.0.1", 0)
        made = server(Guard(app, LOCAL if strict else None, token), limits, queue, results)
        thread = threading.Thread(target=made.run, args=([socket],))
        thread.start()
        served = Served(socket.getsockname()[1], queue, results)
        running.append((made, thread, served))
        return served

    yield serve
    for made, thread, served in running:
        for client in served.clients:
            client.close()
        made.should_exit = True
        thread.join(SOON)
        assert not thread.is_alive()
        assert not served.results.folder.exists()


@pytest.fixture(scope="session")
def served(serving: Callable[..., Served], classifier: Path, segmenter: Path) -> Served:
    """A server with limits on sizes and times that a test reaches soon."""
    limits = Limits(
        body=16 * 2**20, voxels=2**22, unpacked=2**24, files=200, headers_s=1.0, pause_s=0.4, upload_s=1.5, queue=4
    )  # fmt: skip
    return serving({"pictures": classifier, "volumes": segmenter}, limits)
