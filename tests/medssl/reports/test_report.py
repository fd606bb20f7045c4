"""The report is one file that asks for nothing, escapes what data say, and leaves out what a run lacks."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fabricated_runs import classification_run, finetune_run, pretrain_run, write
from PIL import Image

from medssl.problems import InputError
from medssl.reports.charts import bars_by_arm, curve_series, curves, prediction_figure, views_figure
from medssl.reports.pictures import _fullest, _slice
from medssl.reports.report import write_report
from medssl.reports.run import answer, limits, scores
from medssl.runs import read_run
from medssl.scores.classes import Judged

EVIL = '<script>alert("$x^$")</script>'
VOID = {"meta", "img", "source"}


class Outline(HTMLParser):
    """Collects tags, headings and addresses, and checks that elements are nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append((self.open[-1], data))


def outline(folder: Path) -> tuple[Outline, str]:
    page = write_report(folder).read_text(encoding="utf-8")
    found = Outline(page)
    assert all(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert not re.search(r"url\(|@import", page)
    assert page.count("Research use only. Not a medical device.") == 1
    assert not [path for path in folder.iterdir() if path.name.startswith(".partial")]
    return found, page


def pictures(run: Path, shape: tuple[int, ...] = (20, 24, 10)) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for k in range(2):
        label = np.zeros(shape, np.uint8)
        label[5:12, 5:14] = 1
        label[12:15, 5:14] = 2
        arrays |= {f"image_{k}": random.random((1, *shape)).astype(np.float16), f"label_{k}": label}
        arrays |= {f"prediction_{k}": np.roll(label, k, 0), f"name_{k}": np.array(f"p{k}_{EVIL}")}
    np.savez(run / "predictions.npz", **arrays)


def test_a_fine_tuning_run(tmp_path: Path) -> None:
    run = finetune_run(tmp_path / "run", {f"p0_{EVIL}": [0.5, 0.7], "p1_1": [0.9, 0.9]}, summary={"warnings": [EVIL]})
    write(run / "split.json", {"labels": {"0": "background", "1": EVIL}})
    pictures(run)
    found, page = outline(run)
    expected = ["What was done", "The answer", "Scores", "Curves", "Predictions", "Settings", "Environment", "Limits"]
    assert found.headings == [("h1", "Fine-tuning: vit_small, random start"), *(("h2", name) for name in expected)]
    assert "Mean Dice 0.750 (95% interval 0.600 to 0.900" in page
    assert "Empty classes: A class that neither" in page
    assert "&lt;script&gt;" in page
    assert "alert(&quot;" in page


def test_surfaces_and_volumes_of_a_segmentation(tmp_path: Path) -> None:
    measured = {"tolerance": 1.5, "volume_unit": "mm2"}
    run = finetune_run(tmp_path / "run", {"p0_1": [0.5, 0.7], "p1_1": [0.9, 0.9]}, surface=0.5, summary=measured)
    found = read_run(run)
    page = " ".join([answer(found), *scores(found)])
    for words in (
        "surface Dice at 1.5 mm 0.375, mean HD95 2.00 mm, n = 2",
        "<td>0.375 [0.300, 0.450]</td>",
        "error mm²",
        "<td>-1.5 [-1.5, -1.5]</td><td>1.5 [1.5, 1.5]</td><td>+0.0% [+0.0%, +0.0%]</td><td>0</td>",
    ):
        assert words in page, words
    older = read_run(finetune_run(tmp_path / "older", {"p0_1": [0.5, 0.7]}))
    assert not re.search("surface Dice|Volume of", " ".join([answer(older), *scores(older)]))


def test_the_calibration_of_a_classification(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cases = {f"p{k}_1": (int(random.random() < 0.6), [0.05, 0.9, 0.05]) for k in range(40)}
    known = [Judged(case, case, truth, tuple(p)) for case, (truth, p) in cases.items()]
    right = np.mean([truth for truth, _ in cases.values()])
    run = classification_run(tmp_path / "run", cases, validation=known)
    page = " ".join([*scores(read_run(run)), *limits(read_run(run))])
    assert f"a probability of 90% and is right in {right:.0%} of the cases: it is too sure of itself" in page
    assert "fitted on the 40 validation cases, changes no answer; with it the log loss is" in page
    assert page.count("<h3>Calibration</h3>") == page.count("Calibration: Confidence is") == 1
    few = read_run(classification_run(tmp_path / "few", cases, validation=known[:3]))
    assert "There is no temperature: 3 validation cases are too few" in " ".join(scores(few))
    summary = json.loads((run / "summary.json").read_text())
    del summary["calibration"]
    write(run / "summary.json", summary)
    assert "alibration" not in " ".join([*scores(read_run(run)), *limits(read_run(run))])
    write(run / "summary.json", summary | {"task": "tasting"})
    with pytest.raises(InputError, match="task: found tasting, expected segmentation or classification"):
        write_report(run)


def test_a_pretraining_run_and_one_that_is_not_finished(tmp_path: Path) -> None:
    found, page = outline(pretrain_run(tmp_path / "pretrain"))
    assert ("h2", "Views") in found.headings
    assert "pre-trained on 200 unlabelled cases with recon_contrast for 100 steps" in page
    (tmp_path / "young").mkdir()
    write(tmp_path / "young" / "config.json", {"kind": "pretrain", "network": {"name": "vit_small"}})
    found, page = outline(tmp_path / "young")
    assert "not finished (no summary.json)" in page
    assert ("h2", "Curves") not in found.headings


@pytest.mark.parametrize(
    ("by", "classes", "told"),
    [("views", [0, 1, 1, 0], "not used in training"), ("class", [0, 1, 1, 0], "used in training"), ("class", [-1] * 4, "")],
)
def test_embeddings_say_whether_classes_were_used(tmp_path: Path, by: str, classes: list[int], told: str) -> None:
    run = pretrain_run(tmp_path / "pretrain")
    write(run / "config.json", json.loads((run / "config.json").read_text()) | {"method": {"name": "pairs", "by": by}})
    write(run / "split.json", {"labels": {"0": "disc", "1": "ring"}})
    np.savez(run / "embeddings.npz", features=np.random.default_rng(0).random((4, 8)), classes=np.array(classes))
    _, page = outline(run)
    caption = "Embeddings of validation crops on their two first principal axes."
    assert f"{caption}{told and f' The classes were {told}.'}</figcaption>" in page


def test_a_folder_of_runs(tmp_path: Path) -> None:
    elsewhere = pretrain_run(tmp_path / "elsewhere" / "pretrain")
    root = tmp_path / "study"
    for seed in (0, 1):
        cases = {f"p{k}_1": [0.5, 0.6] for k in range(10)}
        pictures(finetune_run(root / f"random{seed}", cases, seed=seed))
        better = {case: [a + 0.1, b + 0.1] for case, (a, b) in cases.items()}
        finetune_run(root / f"pre{seed}", better, seed=seed, encoder=str(elsewhere / "encoder.safetensors"))
    (root / "begun").mkdir()
    write(root / "begun" / "config.json", {"kind": "finetune", "note": EVIL})
    found, page = outline(root)
    names = [name for level, name in found.headings if level == "h2"]
    assert names == [
        "The answer", "What was done", "Table", "Cost and gain", "Curves", "Views", "Predictions", "Settings", "Environment",
        "Limits",
    ]  # fmt: skip
    assert "pre-training raises the mean Dice of vit_small from 0.550 to 0.650, by +0.100" in page
    assert "begun: unfinished (no summary.json)" in page
    summary = json.loads((root / "summary.json").read_text())
    assert summary["differences"][0]["interval"] == pytest.approx([0.1, 0.1])
    assert [arm["dice"] for arm in summary["arms"]] == pytest.approx([0.55, 0.65])
    outline(root)  # again: the comparison's own summary.json is no run


def test_no_run_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finished fine-tuning run"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "absent")
    run = finetune_run(tmp_path / "run", {"p_1": [0.5, 0.5]})
    (run / "predictions.npz").write_bytes(b"PK broken")
    with pytest.raises(InputError, match=r"predictions\.npz"):
        write_report(run)
    assert not list(tmp_path.glob("**/report.html"))


def test_curves_keep_the_last_word_on_a_step(tmp_path: Path) -> None:
    run = finetune_run(tmp_path / "run", {"p_1": [0.5, 0.5]})
    lines = [*read_run(run).metrics(), {"step": 100, "loss": 7.0, "data_hash": "ab", "ok": True, "val_loss": None}]
    series = curve_series(lines)
    assert list(series) == ["loss", "val_dice", "lr"]
    assert series["loss"][1][-1] == 7.0
    assert series["loss"][0].size == 100


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_figures_are_drawn_for_2d_3d_and_nothing() -> None:
    random = np.random.default_rng(0)
    for shape in ((2, 16, 20, 12), (1, 24, 32)):
        arrays = {name: random.random(shape) for name in ("image", "view_0", "view_1", "reconstruction_0")}
        assert min(size(views_figure({name: array[None] for name, array in arrays.items()}))) > 100
        label = np.zeros(shape[1:], int)
        shown = {"image_0": arrays["image"], "label_0": label, "prediction_0": label, "name_0": "none"}
        assert min(size(prediction_figure(shown, 0, {}, spacing=(1.0,) * len(label.shape)))) > 100
    assert min(size(bars_by_arm(["_a", "$b^$"], {"$": [0.5, None]}, {"$": [None, None]}, "Dice", 1.0, dark=True))) > 100
    assert size(curves([]))[0] > 0


def test_slices_are_radiological() -> None:
    volume = np.zeros((4, 6, 3), int)  # x to the right, y to the front, z up
    volume[3, 5, 1] = 1  # right, anterior
    picture = _slice(volume, 1)
    assert picture.shape == (6, 4)
    assert picture[0, 0] == 1  # top: anterior; left: the patient's right
    depth = np.zeros((4, 6, 20), int)
    depth[:, :, 8:12] = 1
    depth[0, :, 8] = 0
    assert _fullest(depth, 2) == [9, 11]
