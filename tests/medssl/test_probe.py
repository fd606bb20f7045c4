"""The classifiers against slow references, and `medssl probe` end to end on stripes that only a made encoder can tell."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from made_files import nifti
from sklearn.linear_model import LogisticRegression

from medssl.cli import main
from medssl.config import Finetune, ViTSettings
from medssl.data import load_data
from medssl.pixels import small_pixels, standardise_pixels
from medssl.probes.classifiers import (
    NEIGHBOURS,
    TEMPERATURE,
    Labelled,
    linear_probe,
    log_loss,
    logistic_regression,
    nearest_neighbours,
    standardise,
)
from medssl.probes.command import Asked, probe
from medssl.scores.classes import quick_figures
from medssl.tasks.pixels import judge_pixels
from networks import build_encoder
from networks.transfer import write_weights

Blobs = tuple[Labelled, Labelled, Labelled]


def blobs(counts: tuple[int, int, int], e: int = 20, k: int = 3, apart: float = 1.0) -> Blobs:
    """Training, validation and test rows of `k` Gaussian classes."""
    random = np.random.default_rng(0)
    centres = apart * random.standard_normal((k, e))
    classes = [np.arange(n) % k for n in counts]
    rows = [centres[of] + random.standard_normal((len(of), e)) for of in classes]
    parts = [Labelled(features, of) for features, of in zip(standardise(*rows), classes, strict=True)]
    return parts[0], parts[1], parts[2]


def accuracy(probabilities: np.ndarray, classes: np.ndarray) -> float:
    return float((probabilities.argmax(1) == classes).mean())


@pytest.mark.parametrize("apart", [0.5, 3.0])
def test_the_linear_probe_is_as_good_as_logistic_regression(apart: float) -> None:
    training, validation, test = blobs((300, 300, 2000), apart=apart)
    probe = linear_probe(training, validation, test.features, 3)
    theirs = [LogisticRegression(C=c, max_iter=1000).fit(*training) for c in (1e-2, 1, 1e2, 1e4)]
    best = min(theirs, key=lambda model: log_loss(model.predict_proba(validation.features), validation.classes))
    probabilities = best.predict_proba(test.features)
    assert accuracy(probe.probabilities, test.classes) == pytest.approx(accuracy(probabilities, test.classes), abs=0.015)
    assert log_loss(probe.probabilities, test.classes) <= log_loss(probabilities, test.classes) + 0.01
    assert probe.tried[probe.chosen] == min(probe.tried.values())
    regression = logistic_regression(training, validation, test.features, 3)
    assert log_loss(regression.probabilities, test.classes) <= log_loss(probabilities, test.classes) + 0.01
    np.testing.assert_array_equal(linear_probe(training, validation, test.features, 3).probabilities, probe.probabilities)


def test_neighbours_vote_as_in_a_slow_loop() -> None:
    training, validation, test = blobs((23, 60, 40), apart=0.6)
    probe = nearest_neighbours(training, validation, test.features, 3)
    assert list(probe.tried) == [count for count in NEIGHBOURS if count <= 23]

    def slowly(row: np.ndarray, count: int) -> np.ndarray:
        cosine = [x @ row / np.linalg.norm(x) / np.linalg.norm(row) for x in training.features]
        votes = np.zeros(3)
        for i in sorted(range(23), key=lambda i: -cosine[i])[:count]:
            votes[training.classes[i]] += np.exp(cosine[i] / TEMPERATURE)
        return (count * votes / votes.sum() + 1 / 3) / (count + 1)

    for count, loss in probe.tried.items():
        validated = np.array([slowly(row, int(count)) for row in validation.features])
        assert log_loss(validated, validation.classes) == pytest.approx(loss)
    expected = [slowly(row, int(probe.chosen)) for row in test.features]
    np.testing.assert_allclose(probe.probabilities, expected, atol=1e-12)


@pytest.mark.parametrize("labels", [2, 4, 7])
def test_no_more_neighbours_than_labels(labels: int) -> None:
    training, validation, test = blobs((labels, 10, 10), k=2)
    probe = nearest_neighbours(training, validation, test.features, 2)
    assert max(probe.tried) == max(count for count in NEIGHBOURS if count <= labels)
    np.testing.assert_allclose(probe.probabilities.sum(1), 1)
    assert probe.probabilities.min() > 0


def test_only_training_rows_set_the_standard() -> None:
    random = np.random.default_rng(1)
    training, test = random.normal(5, 3, (40, 6)), random.normal(5, 3, (10, 6))
    training[:, 2] = 4.0
    one, judged = standardise(training, test)
    assert np.mean((one**2).sum(1)) == pytest.approx(5 / 6)  # one feature of six is constant in training
    assert not judged[:, 2].any()
    moved = test.copy()
    moved[1:] += 1000
    again, others = standardise(training, moved)
    np.testing.assert_array_equal(again, one)
    np.testing.assert_array_equal(others[0], judged[0])


def test_a_class_that_no_part_has_is_never_likely() -> None:
    training, validation, test = blobs((40, 30, 30), k=2)
    for classifier in (linear_probe, nearest_neighbours, logistic_regression):
        found = classifier(training, validation, test.features, 3).probabilities
        assert found.shape == (30, 3)
        assert found[:, 2].max() < 0.35


def test_small_pixels_are_means_of_boxes() -> None:
    image = torch.rand(2, 3, 64, 96)
    expected = image.reshape(2, 3, 32, 2, 32, 3).mean((3, 5)).flatten(1)
    torch.testing.assert_close(small_pixels(image), expected)
    assert small_pixels(torch.rand(2, 1, 24, 16, 20)).shape == (2, 16**3)
    few = torch.rand(1, 1, 8, 48)
    torch.testing.assert_close(small_pixels(few)[0, :1].item(), few[0, 0, 0, :2].mean().item())  # 8 x 32 boxes, which overlap


def test_pixels_are_standardised_by_the_training_rows_and_one_deviation() -> None:
    random = np.random.default_rng(0)
    training, test = random.normal(3, [0.01, 2, 2, 2], (30, 4)), random.normal(size=(5, 4))
    ours, judged = standardise_pixels(training, test)
    centred = training - training.mean(0)
    np.testing.assert_allclose(ours, centred / np.sqrt((centred**2).mean()) / 2)
    np.testing.assert_allclose(judged - judged[0], (test - test[0]) / np.sqrt((centred**2).mean()) / 2)
    assert np.isfinite(standardise_pixels(np.ones((3, 4)))[0]).all()


SIDE, PATCH, WIDTH = 32, 8, 24
NETWORK = {"name": "vit_tiny", "patch_size": [PATCH, PATCH], "hidden_size": WIDTH, "mlp_size": 48, "layers": 2, "heads": 3}
PLAN: dict[str, Any] = {
    "network": ViTSettings.model_validate(NETWORK).model_dump(),
    "image_size": [SIDE, SIDE],
    "patch_size": [PATCH, PATCH],
    "channels": 1,
    "spatial_dims": 2,
    "spacing": None,
    "intensity": {"name": "window", "low": 0, "high": 255},
}


def stripes(angle: float, phase: float, side: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    return np.sin(2 * np.pi / 4 * (x * np.cos(angle) + y * np.sin(angle)) + phase)


def made_encoder(file: Path, channels: int = 1, side: int = SIDE, **changes: Any) -> Path:
    """A ViT by hand: patches are compared with stripes of four angles and two phases, and the sizes of the answers kept."""
    encoder = build_encoder("vit_tiny", channels, [side, side], **{k: v for k, v in NETWORK.items() if k != "name"})
    state = {name: torch.zeros_like(value) for name, value in encoder.state_dict().items()}
    for name, value in state.items():
        if "norm" in name and name.endswith("weight"):
            value.fill_(1)
    for i in range(8):
        filter = torch.tensor(stripes(np.pi / 4 * (i // 2), np.pi / 2 * (i % 2), PATCH), dtype=torch.float32)
        state["patch_embedding.patch_embeddings.weight"][i] = (filter - filter.mean()) / channels
        for sign, hidden in ((1, i), (-1, 8 + i)):  # gelu(x) + gelu(-x), nearly |x|
            state["blocks.0.mlp.linear1.weight"][hidden, i] = sign * 3
            state["blocks.0.mlp.linear2.weight"][8 + i // 2, hidden] = 3
    encoder.load_state_dict(state)
    write_weights(file, encoder, {k: v for k, v in (PLAN | {"image_size": [side, side]} | changes).items() if v is not ...})
    return file


@pytest.fixture(scope="session")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of PNG files with stripes of three angles, any phase, under noise; two images a patient."""
    folder = tmp_path_factory.mktemp("striped")
    random = np.random.default_rng(0)
    counts = {"training": 36, "validation": 18, "test": 60}
    parts: dict[str, list[dict[str, Any]]] = {}
    for part, count in counts.items():
        parts[part] = []
        for i in range(count):
            pattern = stripes(np.pi / 4 * (i % 3), random.uniform(0, 2 * np.pi), SIDE + 8)
            image = 128 + 25 * pattern + 40 * random.standard_normal(pattern.shape)
            name = f"{part}_{i:02d}"
            PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
            parts[part].append({"id": name, "patient": f"{part}{i // 2}", "image": f"{name}.png", "label": i % 3})
    labels = {"0": "across", "1": "aslant", "2": "along"}
    split = {"name": "striped", "task": "classification", "modality": {"0": "photo"}, "labels": labels, **parts}
    (folder / "split.json").write_text(json.dumps(split))
    return folder / "split.json"


def changed(split: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a split beside it, changed."""
    content = json.loads(split.read_text())
    change(content)
    path = split.with_name("changed.json")
    path.write_text(json.dumps(content))
    return path


def test_the_command_tells_a_good_encoder_from_a_random_one(
    striped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = made_encoder(tmp_path / "encoder.safetensors")
    assert main(["probe", str(tmp_path), "--split", str(striped)]) == 0
    table = capsys.readouterr().out
    assert "encoder linear beats random linear" in table
    assert "encoder linear beats pixels logistic regression" in table
    assert "60 test (30 patients)" in table
    content = json.loads((tmp_path / "probe-striped" / "probe.json").read_text())
    found = {(probe["features"], probe["probe"]): probe for probe in content["probes"]}
    assert found["encoder", "linear"]["accuracy"] > 0.95
    assert found["encoder", "kNN"]["accuracy"] > 0.9
    assert found["pixels", "logistic regression"]["accuracy"] < 0.6
    assert found["random", "linear"]["accuracy"] < 0.75
    assert found["nothing", "class shares"]["log_loss"] == pytest.approx(np.log(3))
    assert found["encoder", "linear"]["patients"] == 30
    assert PIL.Image.open(tmp_path / "probe-striped" / "embedding.png").size[0] > 300

    words = ["--labelled", "6", "--draw", "1", "--json", "--out", str(tmp_path / "few")]
    assert main(["probe", str(encoder), "--split", str(striped), *words]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "few" / "probe.json").read_text())
    assert printed["labelled"] == printed["cases"]["training"] == 6
    assert max(float(k) for k in printed["probes"][1]["validation_log_loss"]) <= 6


def test_a_probe_and_a_fine_tuning_have_one_pixel_baseline(striped: Path, tmp_path: Path) -> None:
    """The same crops, the same rows, the same fit: the same figures to the last digit."""
    made_encoder(tmp_path / "encoder.safetensors")
    judgement = probe(Asked(tmp_path, striped)).judgements[4]
    assert judgement.name == ("pixels", "logistic regression")
    words = {"network": NETWORK, "crop_size": [SIDE, SIDE], "intensity": PLAN["intensity"], "pad": True}
    values = {"split": striped, "out": tmp_path / "run", "steps": 1, "batch_size": 4, "validate_every": 1, "lr": 1, **words}
    settings = Finetune.model_validate(values)
    split, store = load_data(settings, ("training", "validation", "test"), labels=True)
    baseline = judge_pixels(settings, split, store)
    assert baseline["C"] == judgement.chosen
    assert {key: baseline[key] for key in ("log_loss", "accuracy")} == pytest.approx(
        {key: quick_figures(judgement.rows)[key] for key in ("log_loss", "accuracy")}, rel=1e-12
    )


def test_a_collapsed_encoder_is_told(striped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = made_encoder(tmp_path / "encoder.safetensors")
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny", 1, [SIDE, SIDE], **{k: v for k, v in NETWORK.items() if k != "name"})
    encoder.patch_embedding.patch_embeddings.weight.data.mul_(1e-4)
    write_weights(file, encoder, PLAN)
    assert main(["probe", str(file), "--split", str(striped)]) == 0
    table = capsys.readouterr().out
    assert "have collapsed" in table
    assert "understand why before you report them" in table


def test_other_channels_and_other_preparation_are_said(
    striped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = made_encoder(tmp_path / "encoder.safetensors", channels=3, side=16)
    words = ["--set", "intensity=percentile", "threads=1"]
    assert main(["probe", str(encoder), "--split", str(striped), *words]) == 0
    table = capsys.readouterr().out
    assert "adapted 1 (patch_embedding.patch_embeddings.weight)" in table
    assert "warning: intensity is " in table
    assert "the centre of 16x16 voxels holds 16% of an image; --set fit=[16,16] shows it whole" in table


def test_volumes_and_residual_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    parts: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    for i in range(18):
        volume = random.normal(100 + 60 * (i % 2), 10, (18, 16, 12)).astype(np.int16)
        (tmp_path / f"{i}.nii").write_bytes(nifti(volume))
        parts[("training", "validation", "test")[i // 6]].append({"id": f"v{i}", "image": f"{i}.nii", "label": i % 2})
    split = {"name": "volumes", "task": "classification", "labels": {"0": "dark", "1": "bright"}, **parts}
    (tmp_path / "split.json").write_text(json.dumps(split))
    sizes = {"width": 4, "stem_stride": 1, "stem_pool": False, "normalise": "none"}
    torch.manual_seed(0)
    encoder = build_encoder("resnet18", 1, [16, 16, 16], **sizes)
    plan = PLAN | {"network": sizes | {"name": "resnet18"}, "image_size": [16, 16, 16], "patch_size": None, "spatial_dims": 3}
    write_weights(tmp_path / "encoder.safetensors", encoder, plan)
    assert main(["probe", str(tmp_path), "--split", str(tmp_path / "split.json")]) == 0
    assert "encoder's features are not shown to beat an untrained encoder or pixels" in capsys.readouterr().out
    content = json.loads((tmp_path / "probe-volumes" / "probe.json").read_text())
    assert [probe["accuracy"] for probe in content["probes"][:5]] == [1.0] * 5  # brightness is easy for all


def without(content: dict[str, Any], name: int) -> None:
    content["training"] = [case for case in content["training"] if case["label"] != name]


REFUSALS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], object] | None, list[str], str]] = {
    "no plan": ({"network": ...}, None, [], "plan: found none, or one without network"),
    "task": ({}, lambda c: c.update(task="regression"), [], "task: found regression, expected classification: a probe needs"),
    "class missing": ({}, lambda c: without(c, 1), [], "training: found no case of aslant, expected one, as validation has"),
    "class drawn out": ({}, None, ["--labelled", "2"], "training: found no case of along"),
    "too many": ({}, None, ["--labelled", "99"], "labelled: found 99, expected 1 to 36"),
    "no validation": ({}, lambda c: c.pop("validation"), [], "validation: found no cases, expected at least one case"),
    "setting": ({}, None, ["--set", "lr=3"], "lr: found no setting of a probe"),
    "value": ({}, None, ["--set", "fit=[3]"], "fit: found [3]"),
    "axes": ({"image_size": [SIDE] * 3}, None, [], "network.patch_size: found [8, 8]"),
    "architecture": ({"network": PLAN["network"] | {"layers": 4}}, None, [], "encoder: found "),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_in_a_line(name: str, striped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, change, words, expected = REFUSALS[name]
    encoder = made_encoder(tmp_path / "encoder.safetensors", **plan)
    split = changed(striped, change) if change else striped
    assert main(["probe", str(encoder), "--split", str(split), *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    assert expected in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]


def test_images_of_pretraining_are_refused_or_named(striped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from medssl.check import content_hash
    from medssl.plan import SHORT
    from medssl.readers import read_images

    seen = [content_hash(read_images((striped.parent / f"test_{i:02d}.png",)))[:SHORT] for i in (3, 7)]
    encoder = made_encoder(tmp_path / "encoder.safetensors", seen=seen)
    assert main(["probe", str(encoder), "--split", str(striped)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum("pre-trained on, expected one it never saw, or --allow-seen" in line for line in lines) == 2
    assert main(["probe", str(encoder), "--split", str(striped), "--allow-seen"]) == 0
    assert "pre-trained on 2 of the cases that are judged" in capsys.readouterr().out


def test_a_folder_without_an_encoder(striped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", str(tmp_path), "--split", str(striped)]) == 2
    assert "encoder: found no such file, expected a pre-training run" in capsys.readouterr().err
