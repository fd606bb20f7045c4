"""`medssl serve` as a process: what it says, and that a signal loses no image that was under way."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from medssl.web.example import made_up


@pytest.mark.slow
def test_a_signal_ends_it_after_what_is_under_way(classifier: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "medssl.cli", "serve", str(classifier), "--port", "0", "--device", "cpu", "--threads", "1"]
    for name in ("medssl-serve-left", "medssl-serve-alive"):
        (tmp_path / name / "results").mkdir(parents=True)
        (tmp_path / name / "lock").touch()
    alive = (tmp_path / "medssl-serve-alive" / "lock").open("rb")
    fcntl.flock(alive, fcntl.LOCK_EX)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert "research use only" in process.stderr.readline()
        with httpx.Client(base_url=url, timeout=30, trust_env=False, verify=False) as client:
            sent = [client.post("api/predict", files={"image": made_up(2, 1)}).json()["result"] for _ in range(3)]
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            while client.get("api/health").json()["status"] == "ok":
                assert time.monotonic() - began < 10
            assert client.post("api/predict", files={"image": made_up(2, 1)}).status_code == 503
            found = [client.get(where, params={"wait": 10}).json() for where in sent]
            assert [one["state"] for one in found] == ["done"] * 3
        assert process.wait(10) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 10
        assert [path.name for path in tmp_path.glob("medssl-serve-*")] == ["medssl-serve-alive"]
        assert process.stderr.read() == "stopped by SIGTERM\n"
    finally:
        process.kill()
        process.wait()
        alive.close()
