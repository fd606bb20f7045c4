"""Training: exact resume, one line a step, clean stops."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import started
import torch
from started import forked, timeless

from medssl import checkpoint, validation
from medssl.config import Finetune, Pretrain
from medssl.finetune import finetune
from medssl.optimisers import parameter_groups
from medssl.pretrain import pretrain
from medssl.problems import InputError, RunError
from medssl.run_folder import RunFolder
from medssl.schedules import pace_at
from medssl.stopping import Finished
from medssl.synth import make_dataset
from networks.transfer import read_weights
from networks.vit import ViT


def lines(folder: Path) -> list[dict[str, Any]]:
    """The metrics without the times, which no two runs share."""
    return timeless(started.lines(folder))


@pytest.mark.slow
def test_a_run_that_is_stopped_and_resumed_equals_one_that_is_not(pretraining: Callable[..., Pretrain], tmp_path: Path) -> None:
    """Stopped by SIGTERM in the middle, resumed with another number of workers: same lines, same weights, bit for bit."""
    straight, broken = (
        pretraining(steps=40, validate_every=20, out=tmp_path / "straight"),
        pretraining(steps=40, validate_every=20, out=tmp_path / "broken"),
    )
    pretrain(straight)
    with forked(broken) as process:
        process.until(lambda: len(lines(broken.out)) >= 5)
        process.tell(signal.SIGTERM)
        process.ended(143)
    assert len(lines(broken.out)) < len(lines(straight.out))
    assert (broken.out / "progress.png").is_file()  # up to the stop, before the first validation too
    pretrain(broken.model_copy(update={"workers": 2}), resume=True)
    assert lines(broken.out) == lines(straight.out)
    weights = [read_weights(folder / "encoder.safetensors")[0] for folder in (straight.out, broken.out)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_curves_are_drawn_as_often_as_a_fiftieth_of_the_time_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drawing takes half a second here, a validation comes every five: the first, then one in 25 seconds, and the last."""
    now, drawn = [100.0], list[float]()

    def draw(lines: list[dict[str, Any]]) -> bytes:
        now[0] += 0.5
        drawn.append(now[0])
        return b"PNG"

    monkeypatch.setattr(validation.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(validation, "curves", draw)
    curves = validation.Curves(RunFolder(tmp_path, (tmp_path / "lock").open("w"), {}))
    for _ in range(12):
        now[0] += 5
        curves.draw()
    curves.draw(last=True)
    assert drawn == [105.5, 126.0, 151.5, 162.0]
    assert (tmp_path / "progress.png").read_bytes() == b"PNG"


def test_a_pretraining_leaves_a_whole_run_folder(pretraining: Callable[..., Pretrain]) -> None:
    settings = pretraining()
    pretrain(settings)
    names = {path.name for path in settings.out.iterdir()}
    assert names >= {
        "config.json", "environment.json", "split.json", "log.txt", "metrics.jsonl", "progress.png", "checkpoint_latest.pt",
        "checkpoint_previous.pt", "checkpoint_best.pt", "encoder.safetensors", "encoder.json", "summary.json", "report.html",
    }  # fmt: skip
    assert [line["step"] for line in lines(settings.out)] == [1, 2, 3, 3, 4, 5, 6, 6]
    plan = json.loads((settings.out / "encoder.json").read_text())
    assert (plan["patch_size"], plan["image_size"], plan["channels"]) == ([8, 8, 8], [32, 32, 32], 1)
    with pytest.raises(Finished):
        pretrain(settings, resume=True)
    with pytest.raises(InputError, match="a finished run"):
        pretrain(settings)
    with pytest.raises(InputError, match=r"lr: found 0\.002, expected 0\.001, as the run was started"):
        pretrain(pretraining(lr=2e-3), resume=True)
    pretrain(pretraining(overwrite=True, steps=2))
    assert [line["step"] for line in lines(settings.out)] == [1, 2, 2]


def test_finetuning_starts_from_the_encoder_and_freezes_it(
    pretraining: Callable[..., Pretrain], finetuning: Callable[..., Finetune]
) -> None:
    pretrain(pretraining())
    finetune(finetuning(encoder=str(pretraining().out), freeze_steps=6, labelled=2))
    source, _ = read_weights(pretraining().out / "encoder.safetensors")
    model = checkpoint.load(finetuning().out / "checkpoint_latest.pt")["model"]
    assert all(torch.equal(model[f"vit.{name}"], value) for name, value in source.items())
    summary = json.loads((finetuning().out / "summary.json").read_text())
    assert summary["labelled"] == 2
    assert 0 <= summary["dice_interval"][0] <= summary["dice"] <= summary["dice_interval"][1] <= 1
    rows = (finetuning().out / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + summary["n"] * len(summary["classes"])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_cases(finetuning: Callable[..., Finetune]) -> None:
    with pytest.raises(RunError, match=r"step \d: found loss .*nan.*cases of the batch: \w+"):
        finetune(finetuning(lr=1e30, steps=50, precision="float32"))
    best = finetuning().out / "checkpoint_latest.pt"
    assert not best.exists() or all(torch.isfinite(v).all() for v in checkpoint.load(best)["model"].values())


def test_a_folder_in_use_is_refused_and_free_when_its_owner_is_gone(pretraining: Callable[..., Pretrain]) -> None:
    owner = RunFolder.open(pretraining(), "pretrain", resume=False)
    with pytest.raises(InputError, match=f"found a run in use by process {os.getpid()}, expected a folder that is free"):
        RunFolder.open(pretraining(), "pretrain", resume=True)
    owner.close()
    RunFolder.open(pretraining(), "pretrain", resume=True).close()


def test_patience_stops_a_run_that_no_longer_improves(finetuning: Callable[..., Finetune]) -> None:
    finetune(finetuning(lr=1e-12, steps=60, validate_every=1, patience=2, augment={"shift_prob": 0.0}))
    summary = json.loads((finetuning().out / "summary.json").read_text())
    assert summary["best_step"] + 2 == summary["steps"] < 60
    assert "in 2 validations, stopping" in (finetuning().out / "log.txt").read_text()


def test_the_baseline_trains_by_settings_alone(finetuning: Callable[..., Finetune]) -> None:
    finetune(finetuning(network={"name": "unet", "channels": [4, 8, 16]}))
    assert json.loads((finetuning().out / "summary.json").read_text())["network"] == "unet"


def test_the_rate_warms_up_and_falls_as_half_a_cosine(pretraining: Callable[..., Pretrain]) -> None:
    settings = pretraining(steps=110, warmup=10, schedule="cosine", lr=1.0)
    assert [pace_at(settings, step).rate for step in (1, 5, 10)] == [0.1, 0.5, 1.0]
    assert pace_at(settings, 60).rate == pytest.approx(0.5)
    assert pace_at(settings, 110).rate == pytest.approx(0.0)
    assert {pace_at(pretraining(lr=1.0), step) for step in (1, 6)} == {(1.0, 0.9)}


def test_norms_biases_and_positions_do_not_decay() -> None:
    encoder = ViT(1, (16, 16), (8, 8), 24, 48, 2, 3)
    groups = parameter_groups([(encoder.blocks, 0.1), (encoder, 1.0)])
    assert [group["scale"] for group in groups] == [0.1, 0.1, 1.0, 1.0]
    free = {id(p) for group in groups if group.get("weight_decay") == 0 for p in group["params"]}
    names = {name for name, p in encoder.named_parameters() if id(p) in free}
    assert names == {n for n, p in encoder.named_parameters() if (p.ndim == 1 or "position" in n) and "cross" not in n}
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in encoder.parameters())


def test_two_dimensions_by_settings_alone(
    tmp_path: Path, pretraining: Callable[..., Pretrain], finetuning: Callable[..., Finetune]
) -> None:
    """The same code path on images: only crop_size and patch_size have two numbers instead of three."""
    split = make_dataset(tmp_path / "images", cases=12, dims=2)
    network = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 3, "feature_size": 4}
    flat: dict[str, Any] = {"split": split, "store": tmp_path / "store", "crop_size": [48, 32], "network": network}
    pretrain(pretraining(**flat))
    finetune(finetuning(**flat, encoder=str(tmp_path / "pretrain")))
    assert json.loads((tmp_path / "pretrain" / "encoder.json").read_text())["spatial_dims"] == 2
    assert json.loads((tmp_path / "finetune" / "summary.json").read_text())["n"] > 0
