"""ONNX files answer as PyTorch does, for any number of images, or are not written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_runs import KINDS

from medssl.cli import main
from medssl.exports import onnx_file
from medssl.exports.constructors import difference
from medssl.exports.source import read_source
from networks.features import Encoder

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
MARKS = {"UNet 2D": (), "ResNet 2D": pytest.mark.slow}  # of those in the suite


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=MARKS.get(kind, pytest.mark.long)) for kind in KINDS])
def test_every_network_answers_alike(kind: str, make_run: Callable[..., Path]) -> None:
    run = make_run(kind)
    assert main(["export", str(run), "--to", "onnx"]) == 0
    source = read_source(run)
    session = onnxruntime.InferenceSession(run / "export-onnx/model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):  # not the one that it was exported with
        images = torch.rand(count, source.split.channels, *source.size)
        with torch.inference_mode():
            network = source.network
            expected = network.features(images).pooled if isinstance(network, Encoder) else network(images)
        found = torch.from_numpy(session.run(None, {"image": images.numpy()})[0])
        assert found.shape == expected.shape
        assert difference(found, expected) < 1e-5
    told = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert {key: told[key] for key in source.description} == source.description


def test_a_file_that_answers_otherwise_is_not_left(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("UNet 2D")
    monkeypatch.setattr(onnx_file, "examples", lambda source, count: torch.zeros(count, 1, 32, 32) + torch.rand(()))
    monkeypatch.setattr(onnx_file, "plain", lambda network: Drifting())
    assert main(["export", str(run), "--to", "onnx"]) == 1
    error = capsys.readouterr().err
    assert "onnxruntime and PyTorch differ by" in error
    assert error.count("error:") == 1
    assert not list(run.glob("*export*"))


class Drifting(torch.nn.Module):
    """Answers otherwise each time that PyTorch asks."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


def test_what_is_missing_is_named_with_the_command(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert main(["export", str(make_run("UNet 2D")), "--to", "onnx"]) == 2
    error = capsys.readouterr().err
    assert "found onnxscript not installed, expected them: pip install -e '.[onnx]'" in error
