"""A server in this process, with a network for pictures and one for volumes."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served import SOON, Served
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


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Start servers, by their limits and networks or the work in place of predicting; end them afterwards."""
    running = []

    def serve(runs: dict[str, Path], limits: Limits, token: str | None = None, works: list[Work] | None = None) -> Served:
        slots = [{name: load_models([run], "cpu", 1) for name, run in runs.items()} for _ in range(limits.slots)]
        results = Results(tmp_path_factory.mktemp("served"), limits)
        queue = Queue(works or [worker(models, limits) for models in slots], limits)
        app = application(Service(slots[0], limits, queue, results))
        socket = listening("127.0.0.1", 0)
        made = server(Guard(app, LOCAL, token, queue.refuse), limits, queue, results)
        thread = threading.Thread(target=made.run, args=([socket],))
        thread.start()
        served = Served(socket.getsockname()[1], queue, results)
        running.append((made, thread, served))
        return served

    yield serve
    for made, thread, served in running:
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
