"""The API: the same files as the command's, a place for each and for no more, and nobody else's results."""

import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import made_files as make
import numpy as np
import PIL.Image
import pytest
from served import Served
from test_hostile_uploads import exchange

from medssl.cli import main
from medssl.splits import read_split
from medssl.web.example import made_up
from medssl.web.limits import Limits
from medssl.web.opening import kinds_of
from medssl.web.results import Job


def case_of(run: Path) -> Path:
    config = json.loads((run / "config.json").read_text())
    return read_split(config["split"]).part("test")[0].image[0]


def predicted(run: Path, image: Path, out: Path) -> Path:
    assert main(["predict", str(run), "-i", str(image), "-o", str(out), "--device", "cpu", "--threads", "1"]) == 0
    return out


def same_files(served: Served, answer: dict[str, object], out: Path) -> None:
    """Every file that the command leaves is served with the same bytes; the report differs in paths and times alone."""
    files = answer["files"]
    assert isinstance(files, dict)
    with served.client() as client:
        archive = zipfile.ZipFile(io.BytesIO(client.get(files["result.zip"]).content))
        assert set(archive.namelist()) == {path.name for path in out.iterdir()}
        for name in archive.namelist():
            if name == "run_report.json":
                ours, theirs = json.loads(archive.read(name)), json.loads((out / name).read_text())
                assert ours["models"][0]["sha256"] == theirs["models"][0]["sha256"]
                assert ours["input"]["content"] == theirs["input"]["content"]
                assert "/" not in ours["models"][0]["run"]
            else:
                assert archive.read(name) == (out / name).read_bytes(), name
        for name, where in files.items():
            answer_of_file = client.get(where)
            assert answer_of_file.status_code == 200
            assert answer_of_file.headers["content-disposition"].startswith("attachment")
            if name in archive.namelist():
                assert answer_of_file.content == archive.read(name)


def test_a_volume_is_what_the_command_says(served: Served, segmenter: Path, tmp_path: Path) -> None:
    image = case_of(segmenter)
    answer = served.done(image, "volumes")
    out = predicted(segmenter, image, tmp_path / "out")
    assert answer["found"] == json.loads((out / "statistics.json").read_text())
    same_files(served, answer, out)
    volume = tmp_path / "volume.nii.gz"
    volume.write_bytes(httpx.get(served.url + answer["files"]["volume.nii.gz"]).content)  # type: ignore[index]
    import nibabel

    ours, theirs = nibabel.load(volume), nibabel.load(image)
    assert np.array_equal(ours.affine, theirs.affine)
    assert np.array_equal(np.asanyarray(ours.dataobj), np.asanyarray(theirs.dataobj))


def test_a_picture_is_what_the_command_says(served: Served, classifier: Path, tmp_path: Path) -> None:
    image = case_of(classifier)
    answer = served.done(image, "pictures")
    same_files(served, answer, predicted(classifier, image, tmp_path / "out"))
    assert answer["state"] == "done"
    assert "saliency.png" in answer["files"]  # type: ignore[operator]


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -1024.0), (2.0, 0.0)])
def test_a_zip_of_dicom_files_is_shown_with_its_values(served: Served, tmp_path: Path, slope: float, intercept: float) -> None:
    voxels = np.random.default_rng(0).integers(0, 2000, (32, 40, 36), np.uint16)
    make.series(tmp_path / "series", voxels, RescaleSlope=slope, RescaleIntercept=intercept)
    archive = tmp_path / "scan.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in (tmp_path / "series").iterdir():
            packed.write(path, f"DICOM/{path.name}")
    answer = served.done(archive, "volumes")
    found = answer["found"]
    assert isinstance(found, dict)
    assert (found["case"], found["shape"]) == ("scan", [36, 40, 32])
    import nibabel

    volume = tmp_path / "volume.nii.gz"
    volume.write_bytes(httpx.get(served.url + answer["files"]["volume.nii.gz"]).content)  # type: ignore[index]
    assert np.allclose(nibabel.load(volume).get_fdata(), voxels.T * slope + intercept)


def test_what_nobody_may_ask(serving: Callable[..., Served], classifier: Path) -> None:
    served = serving({"pictures": classifier}, Limits(), token="aWord8letters")
    with served.client() as client:
        assert client.get("/api/health").status_code == 200
        assert client.get("/").status_code == 200
        for given in ({}, {"Authorization": "Bearer aWord8letter"}, {"Authorization": "Bearer é".encode()}):
            refused = client.get("/api/models", headers=given)
            assert refused.status_code == 401
            assert "Bearer TOKEN" in refused.json()["error"]
        word = {"Authorization": "Bearer aWord8letters"}
        assert client.get("/api/models", headers=word).status_code == 200
        assert client.get("/api/models", headers=word | {"Host": "elsewhere.example:8000"}).status_code == 421
        assert client.get("/api/models", headers=word | {"Host": f"localhost:{served.port}"}).status_code == 200
        name, content = made_up(2, 1)
        for strange in ({"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Sec-Fetch-Site": "same-site"}):
            assert client.post("/api/predict", headers=word | strange, files={"image": (name, content)}).status_code == 403
        own = word | {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
        sent = client.post("/api/predict", headers=own, files={"image": (name, content)})
        assert sent.status_code == 202
        where = sent.json()["result"]
        assert client.get(where).status_code == 401
        assert client.get(where, headers=word, params={"wait": 30}).json()["state"] == "done"
        assert client.get(where[:-1], headers=word).status_code == 404
        assert client.get(f"{where}/..%2f..%2fetc%2fpasswd", headers=word).status_code == 404
        assert client.get(f"{where}/run_report.json/", headers=word).status_code == 404
        assert client.delete(where, headers=word).status_code == 204
        assert client.get(where, headers=word).status_code == 404
        assert not list(served.results.folder.iterdir())


def test_every_answer_forbids_what_no_page_of_ours_does(served: Served) -> None:
    with served.client() as client:
        for path in ("/", "/app.js", "/vendor/niivue.umd.js", "/api/models", "/api/nothing", "/nothing", "/api/result/x"):
            headers = client.get(path).headers
            assert "default-src 'self'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert not any(name.startswith("access-control") for name in headers)
        schema = client.get("/api/openapi.json").json()
    assert set(schema["paths"]["/api/result/{id}"]) == {"get", "delete"}
    assert "multipart/form-data" in schema["paths"]["/api/predict"]["post"]["requestBody"]["content"]


def test_places_are_bounded_and_come_back(serving: Callable[..., Served], classifier: Path) -> None:
    go = threading.Event()

    def slow(job: Job, check: Callable[[], None]) -> None:
        assert go.wait(60)
        check()
        job.result.mkdir()

    served = serving({"pictures": classifier}, Limits(queue=2, pause_s=0.3), works=[slow])
    image = {"image": made_up(2, 1)}
    with served.client() as client:
        sent = [client.post("/api/predict", files=image).json()["result"] for _ in range(3)]
        full = client.post("/api/predict", files=image)
        assert full.status_code == 503
        assert 1 <= int(full.headers["retry-after"]) <= 60
        assert "all 3 places taken" in full.json()["error"]
        assert [client.get(where).json()["ahead"] for where in sent] == [0, 1, 2]
        assert client.delete(sent[2]).status_code == 204  # before its turn
        assert client.get("/api/health").json() | {"version": ""} == {"status": "ok", "version": "", "places": 3, "free": 0}
        go.set()
        assert client.get(sent[1], params={"wait": 30}).json()["state"] == "done"
        served.idle()
        assert len(list(served.results.folder.iterdir())) == 2
        again = client.post("/api/predict", files=image)
        assert client.get(again.json()["result"], params={"wait": 30}).json()["state"] == "done"
        stalled = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        assert exchange(served.port, stalled + b"Connection: close\r\nContent-Length: 500\r\n\r\n--b\r\n")[0] == 408
        served.idle()


def test_a_fault_ends_its_image_and_no_other(serving: Callable[..., Served], classifier: Path) -> None:
    def faulty(job: Job, check: Callable[[], None]) -> None:
        if job.name == "bad.png":
            raise RuntimeError(f"a fault in {job.folder}")
        job.result.mkdir()

    served = serving({"pictures": classifier}, Limits(), works=[faulty])
    content = made_up(2, 1)[1]
    with served.client() as client:
        bad, good = (
            client.get(client.post("/api/predict", files={"image": (name, content)}).json()["result"], params={"wait": 30})
            for name in ("bad.png", "good.png")
        )
    assert (bad.status_code, bad.json()["state"]) == (500, "failed")
    assert str(served.results.folder) not in bad.text
    assert (good.status_code, good.json()["state"]) == (200, "done")
    assert len(list(served.results.folder.iterdir())) == 1


def test_old_results_go(serving: Callable[..., Served], classifier: Path) -> None:
    def makes(job: Job, check: Callable[[], None]) -> None:
        job.result.mkdir()
        job.bytes = 400

    served = serving({"pictures": classifier}, Limits(kept_s=1e5, kept_bytes=1000), works=[makes])
    content = made_up(2, 1)[1]
    with served.client() as client:
        sent = [client.post("/api/predict", files={"image": ("a.png", content)}).json()["result"] for _ in range(4)]
        for where in sent:
            client.get(where, params={"wait": 30})
        served.results.tidy()
        assert [client.get(where).status_code for where in sent] == [404, 404, 200, 200]
        for job in served.results.jobs.values():
            job.ended_at = time.monotonic() - 2e5
        served.results.tidy()
        assert [client.get(where).status_code for where in sent] == [404] * 4
    assert not list(served.results.folder.iterdir())


def test_who_does_not_read_is_cut_off_and_who_reads_slowly_is_not(serving: Callable[..., Served], classifier: Path) -> None:
    size = 2**24

    def makes(job: Job, check: Callable[[], None]) -> None:
        job.result.mkdir()
        job.files = {"streamed": job.result / "streamed", "whole": job.result / "zip"}
        job.files["streamed"].write_bytes(bytes(size))
        with zipfile.ZipFile(job.files["whole"], "w") as archive:
            archive.writestr("whole", bytes(size))

    def received(path: str, at_first: float, pause: float) -> int:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            connection.connect(("127.0.0.1", served.port))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            time.sleep(at_first)
            count = 0
            try:
                while piece := connection.recv(2**16):
                    count += len(piece)
                    time.sleep(pause)
            except ConnectionResetError:
                pass
        return count

    served = serving({"pictures": classifier}, Limits(unread_s=0.3), works=[makes])
    with served.client() as client:
        where = client.post("/api/predict", files={"image": made_up(2, 1)}).json()["result"]
        files = client.get(where, params={"wait": 30}).json()["files"]
    for path in files.values():
        assert received(path, 0, 0.005) > size  # in 1 s or more, the headers with it
        assert received(path, 1, 0) < size


def test_many_clients_get_their_own_answers(served: Served, classifier: Path) -> None:
    config = json.loads((classifier / "config.json").read_text())
    images = [case.image[0] for case in read_split(config["split"]).part("test")[:6]]
    expected = [served.done(image, "pictures")["found"] for image in images]
    assert len({json.dumps(one) for one in expected}) == len(images)
    wrong, busy = [], []

    def ask(k: int) -> None:
        with served.client() as client:
            while True:
                image = images[k % len(images)]
                sent = client.post(
                    "/api/predict", files={"image": (image.name, image.read_bytes())}, data={"model": "pictures"}
                )
                if sent.status_code != 503:
                    break
                busy.append(int(sent.headers["retry-after"]))
                time.sleep(0.2)
            answer = client.get(sent.json()["result"], params={"wait": 30})
            if answer.status_code != 200 or answer.json()["found"] != expected[k % len(images)]:
                wrong.append((k, answer.text))

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert busy


def test_a_file_has_one_format() -> None:
    stream = io.BytesIO()
    PIL.Image.new("L", (4, 4)).save(stream, "PNG")
    assert [kind.suffix for kind in kinds_of(stream.getvalue())] == [".png"]
    assert [kind.suffix for kind in kinds_of(make.nifti(np.zeros((2, 2, 2), np.int16)))] == [".nii"]
    assert kinds_of(b"BM" + bytes(100)) == []
    assert len(kinds_of(stream.getvalue()[:128].ljust(128, b"\0") + b"DICM")) == 2


def test_settings_out_of_range_are_told(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(classifier), "--slots", "0", "--token", "short", "--port", "70000"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: serve: --") for line in lines)
