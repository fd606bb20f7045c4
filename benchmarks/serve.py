"""`medssl serve` under load: 1, 8, 32 and 128 clients at once, each sending images one by one and asking for their results.

The server is the command in a process of its own. A client that is sent away (503) comes again after the seconds that it was
told, at random up to them. Every answer is compared with what the server said of the same image to a single client: one
that is another image's would be seen. A step ends when its images are done; then clients finish what they began.

Then bursts: as many images as the most clients, in one instant, by plain sockets: coroutines of this process would begin
one after the other, and wait for each other more than for the server.

    python benchmarks/serve.py [RUN] [--clients 1 8 32 128]
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medssl.model_file import MODEL
from medssl.nifti_bytes import nifti_bytes
from medssl.readers import Volume
from medssl.synth import SPACING, make_case
from predict import write_model
from turns import print_rows, write_results

BOUNDARY = "between"


def main() -> None:
    """Load the server in steps, then end it while it works, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", help="a run that marks volumes; by default one of random weights")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--within", type=float, default=1.0, help="seconds in which the clients of a step begin")
    parser.add_argument("--images", type=int, default=40, help="answers of a step")
    parser.add_argument("--bursts", type=int, default=5)
    parser.add_argument("--different", type=int, default=10, help="images")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    gc.freeze()  # a client that pauses is none to time a server with
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if options.run is None:
            run.mkdir()
            write_model(run / MODEL, [1.5, 1.5, 2.0], 48)
        images = [volume(k) for k in range(options.different)]
        process, port = started(run, options)
        try:
            rows = asyncio.run(all_steps(port, process.pid, images, options))
            bursts = [burst(port, images, max(options.clients)) for _ in range(options.bursts)]
            drained = asyncio.run(drain(process, port, images))
        finally:
            process.kill()
    for name in ("images/s", "images/cpu s"):
        best = max(row[name] for row in rows)
        for row in rows:
            row[f"of the best {name}"] = row[name] / best
    print_rows(rows, 0)
    if away := [seconds for of_one in bursts for seconds in of_one]:
        shares, most = (", ".join(f"{ms:.0f}" for ms in found) for found in (
            [share_of(away, share) for share in (0.5, 0.95, 1.0)], [share_of(of_one, 1.0) for of_one in bursts],
        ))  # fmt: skip
        print(f"{len(bursts)} bursts of {max(options.clients)}: {len(away)} sent away; median, 95%, most ms: {shares}")
        print(f"most ms of each burst: {most}")
    print(drained)
    if options.json is not None:
        write_results(options, rows)


def started(run: Path, options: argparse.Namespace) -> tuple[subprocess.Popen[str], int]:
    """The server and its port, once it listens."""
    words = ["serve", run, "--port", "0", "--device", "cpu", "--threads", options.threads, "--slots", options.slots]
    command = [sys.executable, "-m", "medssl.cli", *map(str, words), "--queue", str(options.queue)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert process.stdout is not None
    return process, int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])


@dataclass
class Load:
    """What the clients of a step share and note."""

    port: int
    images: list[bytes]
    expected: list[Any]
    left: int  # images to begin
    seen: Counter[str] = field(default_factory=Counter)
    away_s: list[float] = field(default_factory=list)  # of answers that sent a client away
    done_s: list[float] = field(default_factory=list)


async def all_steps(port: int, pid: int, images: list[bytes], options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of clients."""
    alone = Load(port, images, [], 0)
    expected = [await answer(alone, k) for k in range(len(images))]
    assert len({json.dumps(one) for one in expected}) == len(images), "images that can't be told apart"
    rows = []
    for clients in options.clients:
        load = Load(port, images, expected, max(options.images, clients))
        began, used = time.perf_counter(), processor_s(pid)
        await asyncio.gather(*(client(load, k, options.within * k / clients) for k in range(clients)))
        seconds, used = time.perf_counter() - began, processor_s(pid) - used
        wrong = {name: count for name, count in load.seen.items() if name != "right"}
        right = load.seen["right"]
        rows.append({
            "clients": str(clients), "images/s": right / seconds, "images/cpu s": right / used, "right": str(right),
            "wrong": str(wrong or 0), "median s": statistics.median(load.done_s), "503": str(len(load.away_s)),
            "503 median ms": share_of(load.away_s, 0.5), "503 95% ms": share_of(load.away_s, 0.95),
            "503 most ms": share_of(load.away_s, 1.0),
            "memory MB": resident(pid), "most MB": resident(pid, "VmHWM"),
        })  # fmt: skip
    return rows


async def client(load: Load, number: int, wait: float) -> None:
    """Send images until the step has begun enough of them."""
    await asyncio.sleep(wait)
    while load.left > 0:
        load.left -= 1
        k = random.Random(number * 1000 + load.left).randrange(len(load.images))
        began = time.perf_counter()
        try:
            found = await answer(load, k)
        except (OSError, EOFError, ValueError) as error:
            load.seen[type(error).__name__] += 1
            return
        load.seen["right" if found == load.expected[k] else "another answer"] += 1
        load.done_s.append(time.perf_counter() - began)


async def answer(load: Load, k: int) -> Any:
    """What the server finds in an image, at the end of all waiting."""
    body = form(load.images[k])
    while True:
        began = time.perf_counter()
        status, headers, told = await ask(load.port, "POST", "/api/predict", body)
        if status != 503:
            break
        load.away_s.append(time.perf_counter() - began)
        await asyncio.sleep(random.random() * int(headers["retry-after"]))
    if status != 202:
        raise ValueError(f"{status} {told}")
    while True:
        status, _, told = await ask(load.port, "GET", f"/api/result/{told['id']}?wait=30")
        if status != 200:
            raise ValueError(f"{status} {told}")
        if told["state"] == "done":
            return told["found"]


def share_of(seconds: list[float], share: float) -> float:
    """The milliseconds that this share of them does not exceed."""
    ordered = sorted(seconds) or [0.0]
    return 1e3 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def volume(k: int) -> bytes:
    """A made-up CT as .nii.gz."""
    return nifti_bytes(Volume(make_case(3, 7, k)[0][None], 1.0, 0.0, np.diag([*SPACING, 1.0])))


def form(image: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="image.nii.gz"\r\n\r\n'
    return head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def request(method: str, path: str, body: bytes) -> bytes:
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}\r\n".encode() + body


async def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str], Any]:
    """One request on a connection of its own: status, headers, JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(method, path, body))
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    content = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    return int(lines[0].split()[1]), headers, json.loads(content)


def burst(port: int, images: list[bytes], clients: int) -> list[float]:
    """Send so many images at once; gives the seconds from each connection's begin to the answer that sent it away.

    Returns when the images that were taken are done.
    """
    requests = [request("POST", "/api/predict", form(image)) for image in images]
    began, left = dict[socket.socket, float](), dict[socket.socket, bytes]()
    away: list[float] = []
    with selectors.DefaultSelector() as selector:
        for k in range(clients):
            one = socket.socket()
            began[one] = time.perf_counter()
            one.connect(("127.0.0.1", port))
            one.setblocking(False)
            left[one] = requests[k % len(requests)]
            selector.register(one, selectors.EVENT_READ | selectors.EVENT_WRITE)
            send(one, left, selector)
        while began:
            for key, event in selector.select():
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if not event & selectors.EVENT_READ:
                    send(one, left, selector)
                    continue
                seconds, status = time.perf_counter() - began.pop(one), one.recv(4096).split(b" ", 2)[1]
                if status == b"503":
                    away.append(seconds)
                elif status != b"202":
                    raise ValueError(f"{status!r}")
                selector.unregister(one)
                one.close()
    while (told := asyncio.run(ask(port, "GET", "/api/health"))[2])["free"] < told["places"]:
        time.sleep(0.1)
    return away


def send(one: socket.socket, left: dict[socket.socket, bytes], selector: selectors.BaseSelector) -> None:
    """Send what goes without waiting of what is left of a request."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
        left[one] = left[one][one.send(left[one]) :]
    if not left[one]:
        selector.modify(one, selectors.EVENT_READ)


async def drain(process: subprocess.Popen[str], port: int, images: list[bytes]) -> str:
    """Tell the server to end while it has five images, and say what becomes of them."""
    load = Load(port, images, [], 0)
    asked = [asyncio.create_task(answer(load, 0)) for _ in range(5)]
    while (told := (await ask(port, "GET", "/api/health"))[2])["free"] > told["places"] - 5:
        await asyncio.sleep(0.01)
    began = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    found = await asyncio.gather(*asked, return_exceptions=True)
    answered = sum(not isinstance(one, BaseException) for one in found)
    last = time.perf_counter() - began
    await asyncio.to_thread(process.wait)
    ended = time.perf_counter() - began
    return f"SIGTERM with 5 images under way: {answered} answered after {last:.1f} s, ended after {ended:.1f} s"


def processor_s(pid: int) -> float:
    """Seconds that a process has had of the processor."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int, name: str = "VmRSS") -> float:
    """The memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1e3


if __name__ == "__main__":
    main()
