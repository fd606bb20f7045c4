"""What is hostile gets one line of JSON and leaves nothing behind: no file, no memory, no slower or wrong answer later."""

import json
import os
import socket
from pathlib import Path

import pytest
from hostile_uploads import CANARY, HOSTILE, Request, file, png
from served import SOON, Served

from medssl.web.results import ENDED

GROWTH = 100 * 2**20  # bytes


def exchange(port: int, request: Request) -> tuple[int, bytes]:
    """Send a request as it is and give the status and the body of the answer, which may come before all is sent."""
    with socket.create_connection(("127.0.0.1", port), SOON) as connection:
        try:
            for piece in [request] if isinstance(request, bytes) else request:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while piece := connection.recv(2**16):
                answer += piece
        except ConnectionResetError:
            pass
    status, _, rest = answer.partition(b"\r\n")
    return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]


def outcome(port: int, request: Request) -> tuple[int, bytes]:
    """The same, of the result where the request itself was taken."""
    status, body = exchange(port, request)
    if status != 202:
        return status, body
    path = json.loads(body)["result"]
    ask = f"GET {path}?wait=20 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    return exchange(port, ask.encode())


def memory() -> int:
    """The bytes of this process, server and all, that lie in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def leftovers(served: Served) -> list[Path]:
    return list(served.results.folder.iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the canary, which nobody has read yet."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("canary", "read"):
        (folder / name).write_bytes(CANARY)
        os.utime(folder / name, (1, 2))
    return folder


def forget_all(served: Served) -> None:
    served.idle()
    for job in [job for job in served.results.jobs.values() if job.state in ENDED]:
        served.results.forget(job)


@pytest.mark.slow
def test_hostile_uploads_leave_nothing(served: Served, place: Path) -> None:
    def good() -> dict[str, object]:
        status, body = outcome(served.port, file(png(), b"good.png"))
        assert status == 200
        forget_all(served)
        return json.loads(body)["found"]

    expected, wrong = good(), {}
    before = highest = memory()
    for name, build in HOSTILE.items():
        status, body = outcome(served.port, build(place))
        served.idle()
        highest = max(highest, memory())
        told = json.loads(body) if body.startswith(b"{") and b"\n" not in body else {}
        if not (400 <= status < 500 and told.get("error")) or CANARY in body or leftovers(served):
            wrong[name] = status, body, leftovers(served)
        forget_all(served)
    assert not wrong
    assert len(HOSTILE) >= 40
    assert highest - before < GROWTH
    assert not (place / "unpickled").exists()
    (place / "read").read_bytes()
    if os.stat(place / "read").st_atime > 1:  # else this file system does not tell who reads
        assert os.stat(place / "canary").st_atime == 1
    assert good() == expected
