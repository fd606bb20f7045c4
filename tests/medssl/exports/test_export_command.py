"""What `medssl export` refuses, in a line each, with nothing left behind; what it replaces; what the model card tells."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medssl.cli import main
from medssl.exports import FORMATS
from medssl.model_file import MODEL

Make = Callable[..., Path]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused export ends with."""
    assert main(["export", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_folder_that_is_there_is_kept(make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("UNet 2D")
    (out := tmp_path / "mine").mkdir()
    (out / "thesis.tex").write_text("all of it")
    words = [str(run), "--to", "safetensors", "-o", str(out)]
    assert "-o: found a folder that exists, expected a new one, or --overwrite" in refusal(words, capsys)
    assert "found thesis.tex, which is not of an export" in refusal([*words, "--overwrite"], capsys)
    assert (out / "thesis.tex").read_text() == "all of it"
    (out / "thesis.tex").unlink()
    (out / "model.safetensors").write_text("an earlier one")
    assert main(["export", *words, "--overwrite"]) == 0
    assert (out / "model.safetensors").stat().st_size > 1000
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_failure_leaves_nothing(form: str, make_run: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither half an export nor, where one was to be replaced, none."""
    (out := tmp_path / "out").mkdir()
    (out / "model.safetensors").write_text("an earlier one")

    def failing(source: object, folder: Path) -> list[str]:
        (folder / "model.safetensors").write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr("medssl.exports.writer", lambda name: failing)
    assert main(["export", str(make_run("UNet 2D")), "--to", form, "-o", str(out), "--overwrite"]) == 1
    assert (out / "model.safetensors").read_text() == "an earlier one"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_runs_that_cannot_be_exported(make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "found no config.json" in refusal([str(tmp_path), "--to", "onnx"], capsys)
    encoder = make_run("ViT 3D")
    line = refusal([str(encoder), "--to", "monai-bundle"], capsys)
    assert "a run of pre-training, expected a fine-tuned network" in line
    cut = make_run("ResNet 2D", roi=0.2)
    assert "roi: found 0.2, expected a run on whole images" in refusal([str(cut), "--to", "monai-bundle"], capsys)
    fitted = make_run("UNet 2D", fit=[32, 32])
    assert "fit: found [32, 32], expected a run without" in refusal([str(fitted), "--to", "monai-bundle"], capsys)
    (fitted / MODEL).unlink()
    assert "found a fine-tuning without it" in refusal([str(fitted), "--to", "safetensors"], capsys)
    (fitted / "summary.json").write_text("{}")
    assert "found a run that is not finished" in refusal([str(fitted), "--to", "safetensors"], capsys)
    for run in (encoder, cut, fitted):
        assert not list(run.glob("*export*"))


def test_the_card_tells_figures_with_intervals_and_limits(make_run: Make, tmp_path: Path) -> None:
    run = make_run("UNETR 3D")
    compared = {"answer": "It gains +0.1 [0.05, 0.15].", "arms": [{"folders": [f"elsewhere/{run.name}"]}]}
    (tmp_path / "summary.json").write_text(json.dumps(compared))
    assert main(["export", str(run), "--to", "huggingface", "--license", "cc-by-4.0"]) == 0
    card = (run / "export-huggingface/README.md").read_text()
    head, body = card.removeprefix("---\n").split("\n---\n")
    assert {'license: "cc-by-4.0"', "library_name: monai", "pipeline_tag: image-segmentation", '- "medical"'} <= set(
        head.split("\n")
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")]
    assert ["Dice", "0.8123", "0.7 to 0.9"] in rows
    assert ["lump", "2", "0.8", "none"] in rows
    for words in ("2 cases of 2 patients", "read once", "Not a medical device", "test: 2 cases", compared["answer"]):
        assert words in body, words
    assert "/home/me" not in card + (run / "export-huggingface/config.json").read_text()
