"""Averaged weights, mixup, sizes that grow, gradual unfreezing and one cycle in whole runs, on images of three classes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from breaking import broken_off
from phantoms import make_classes
from torch import Tensor, nn

from medssl import checkpoint
from medssl.average import Average
from medssl.config import Finetune, Pretrain
from medssl.finetune import finetune
from medssl.pretrain import pretrain
from medssl.problems import InputError
from medssl.progressive import Resizing, size_at
from medssl.synth import make_dataset
from medssl.tasks.classification import Classification
from medssl.tasks.segmentation import Segmentation
from networks.weight_files import read_weights

RESNET = {"name": "resnet18", "width": 4, "stem_stride": 1, "stem_pool": False}
VIT = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 2}
EVERYTHING: dict[str, Any] = {
    "network": RESNET, "ema": 0.9, "schedule": "one_cycle", "mixup": 0.4, "freeze_steps": 2, "unfreeze_every": 2,
    "rates": "slice", "encoder_lr": 0.1, "progressive": [[16, 16]], "optimiser": "sgd", "lr": 0.05,
}  # fmt: skip


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of 24 images of three classes."""
    return make_classes(tmp_path_factory.mktemp("classes"), cases=24)


@pytest.fixture
def classifying(
    classes: Path, tmp_path: Path, finetuning: Callable[..., Finetune], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Finetune]:
    """Make settings of a small classification, with changes; runs leave out the pictures, which take longer than they do."""
    monkeypatch.setattr("medssl.finetune.write_report", lambda folder: folder)
    monkeypatch.setattr("medssl.validation.curves", lambda metrics: b"")
    small = {"split": classes, "store": classes.parent / "store", "crop_size": [32, 32], "network": VIT}
    return lambda **changes: finetuning(**small | {"out": tmp_path / "run"} | changes)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The metrics without the times."""
    lines = map(json.loads, (folder / "metrics.jsonl").open())
    return [{k: v for k, v in line.items() if not k.endswith("_s")} for line in lines]


def same(first: Any, second: Any) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, Tensor) else bool(first == second)


@pytest.mark.parametrize("broken_at", [pytest.param(3, marks=pytest.mark.slow), 6])
def test_a_run_of_every_choice_that_breaks_equals_one_that_does_not(
    broken_at: int, classifying: Callable[..., Finetune], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = (
        classifying(**EVERYTHING, steps=7, validate_every=3, out=tmp_path / name) for name in ("straight", "broken")
    )
    finetune(straight)
    with broken_off(Classification, broken_at, monkeypatch):
        finetune(broken)
    finetune(broken, resume=True)
    assert f"going on after step {2 * ((broken_at - 1) // 2)}" in (broken.out / "log.txt").read_text()
    assert metrics(straight.out) == metrics(broken.out)
    for name in ("checkpoint_latest.pt", "checkpoint_best.pt"):
        states = [checkpoint.load(run.out / name) for run in (straight, broken)]
        for state in states:
            state.get("progress", {}).pop("seconds", None)
        assert same(*states), name
    assert len({(run.out / "predictions.csv").read_bytes() for run in (straight, broken)}) == 1
    steps = [line for line in metrics(straight.out) if "loss" in line]
    assert [round(line["momentum"], 4) for line in steps[:3]] == [0.95, 0.8889, 0.8506]  # at 0, 1 and 2 sevenths of one cycle
    assert steps[0]["lr"] == pytest.approx(0.05 / 25)


@pytest.mark.parametrize(
    ("changes", "scales", "anew"),
    [
        ({"encoder_lr": 0.1}, {0.1, 1.0}, False),
        ({"encoder_lr": 0.0}, {1.0}, True),
        ({"rates": "slice", "encoder_lr": 0.25}, {0.25, 0.5, 1.0}, True),
    ],
)
def test_other_rates_by_depth_count_from_where_a_run_loosely_goes_on(
    changes: dict[str, Any], scales: set[float], anew: bool, classifying: Callable[..., Finetune],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = classifying(steps=4)
    with broken_off(Classification, 3, monkeypatch):
        finetune(settings)
    finetune(settings.model_copy(update=changes), resume=True, loose=True)
    state = checkpoint.load(settings.out / "checkpoint_latest.pt")["optimiser"]
    assert {group["lr"] / state["param_groups"][-1]["lr"] for group in state["param_groups"]} == scales
    assert {int(of_one["step"]) for of_one in state["state"].values()} == {2 if anew else 4}
    said = "warning: the optimiser begins anew after step 2, without what it remembered"
    assert (said in json.loads((settings.out / "summary.json").read_text())["warnings"]) == anew


def test_the_average_is_that_of_a_loop_by_hand_and_is_what_is_judged_and_kept(
    classifying: Callable[..., Finetune], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and batch norms of every step are caught and averaged in float64; the last average is what a user gets."""
    caught: list[dict[str, Tensor]] = []
    update, validate, judged = Average.update, Classification.validate, list[dict[str, Tensor]]()

    def watched(self: Average) -> None:
        caught.append({name: value.clone() for name, value in self.model.state_dict().items()})
        update(self)

    def seen(self: Classification, *words: Any) -> dict[str, float]:
        judged.append({name: value.clone() for name, value in self.network.state_dict().items()})
        return validate(self, *words)

    monkeypatch.setattr(Average, "update", watched)
    monkeypatch.setattr(Classification, "validate", seen)
    settings = classifying(network=RESNET, ema=0.4, steps=8, validate_every=4, lr=1e-2, checkpoint="latest")
    finetune(settings)
    mean, means = {name: value.double() for name, value in caught[0].items()}, []
    for k, state in enumerate(caught):
        decay = min(0.4, (1 + k) / (10 + k)) if k else 0.0  # 2/11, 3/12, 4/13, 5/14, 6/15, then 0.4
        mean = {
            name: decay * mean[name] + (1 - decay) * value if value.is_floating_point() else value
            for name, value in state.items()
        }
        means.append(mean)
    for found, wanted in ((judged[0], means[3]), (judged[1], means[7])):
        for name, value in found.items():
            torch.testing.assert_close(value, wanted[name].to(value.dtype), msg=name)
    kept, _ = read_weights(settings.out / "encoder.safetensors")
    last = checkpoint.load(settings.out / "checkpoint_latest.pt")["model"]  # goes on with the weights themselves
    for name, value in kept.items():
        assert torch.equal(value, judged[1][f"encoder.{name}"]), name
        assert torch.equal(last[f"encoder.{name}"], caught[-1][f"encoder.{name}"]), name
    assert not torch.equal(kept["conv1.weight"], last["encoder.conv1.weight"])
    assert not any("momentum" in line for line in metrics(settings.out))  # of a rate that does not vary either


@pytest.mark.slow
def test_pre_training_keeps_the_average(pretraining: Callable[..., Pretrain], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medssl.pretrain.write_report", lambda folder: folder)
    settings = pretraining(ema=0.5, steps=3, checkpoint="latest")
    pretrain(settings)
    state = checkpoint.load(settings.out / "checkpoint_latest.pt")
    kept, _ = read_weights(settings.out / "encoder.safetensors")
    averaged = {name.removeprefix("module."): value for name, value in state["average"].items()}
    prefix = next(name for name in averaged if name.endswith("blocks.0.mlp.linear1.weight")).partition("blocks.0")[0]
    assert all(torch.equal(value, averaged[prefix + name]) for name, value in kept.items())
    assert not torch.equal(kept["norm.bias"], state["model"][f"{prefix}norm.bias"])


def test_an_exchange_is_undone_bit_for_bit() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = Average(model, 0.9)
    average.update()
    model(torch.rand(4, 1, 3, 3) + 1)
    nn.init.constant_(model[0].weight, 3.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with average.shown():
        assert not torch.equal(model[0].weight, before["0.weight"])
        assert model[1].num_batches_tracked == 0
    assert same(dict(model.state_dict()), before)


def test_mixed_images_of_two_classes_are_learned_as_both(classifying: Callable[..., Finetune]) -> None:
    """The loss of a batch in training is the mixed one; at validation nothing is mixed."""
    from medssl.finetune import labelled_split
    from transforms.mixup import draw_mix

    settings = classifying(mixup=1.0)
    task = Classification(settings, labelled_split(settings))
    batch = {"image": torch.rand(4, 1, 32, 32), "class": torch.tensor([0, 1, 2, 0])}
    torch.manual_seed(5)
    found = task.loss(batch)["loss"]
    torch.manual_seed(5)
    mix = draw_mix(1.0, 4)
    logits = task.network(mix.share * batch["image"] + (1 - mix.share) * batch["image"][mix.partner])
    mixed = mix.share * torch.eye(3)[batch["class"]] + (1 - mix.share) * torch.eye(3)[batch["class"][mix.partner]]
    torch.testing.assert_close(found, nn.functional.cross_entropy(logits, mixed))  # with targets of two classes


def test_mixup_is_refused_for_segmentation(finetuning: Callable[..., Finetune]) -> None:
    with pytest.raises(InputError) as caught:
        finetune(finetuning(mixup=0.2))
    (problem,) = caught.value.problems
    assert str(problem) == "settings: mixup: found 0.2, expected 0.0 for the task segmentation"


def sizes_seen(settings: Finetune, monkeypatch: pytest.MonkeyPatch, task: type) -> tuple[list[Any], set[Any]]:
    """The voxels of the images that the network sees, training step by step, and at validation and judging."""
    training, judging, start = list[Any](), set[Any](), task.__init__

    def watched(self: Any, *words: Any) -> None:
        start(self, *words)

        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            side = list(inputs[0].shape[2:])
            training.append(side) if module.training else judging.add(tuple(side))

        self.network.register_forward_pre_hook(look)

    monkeypatch.setattr(task, "__init__", watched)
    finetune(settings)
    return training, judging


@pytest.mark.parametrize("network", [RESNET, VIT], ids=["resnet", "vit"])
def test_the_network_sees_small_images_first(
    network: dict[str, Any], classifying: Callable[..., Finetune], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = classifying(network=network, progressive=[[16, 16], [16, 24]], steps=7, validate_every=7)
    training, judging = sizes_seen(settings, monkeypatch, Classification)
    assert training == [[16, 16]] * 3 + [[16, 24]] * 2 + [[32, 32]] * 2
    assert judging == {(32, 32)}


@pytest.mark.usefixtures("classifying")
def test_segmentation_of_growing_images_by_a_unetr_of_twelve_layers(
    tmp_path: Path, finetuning: Callable[..., Finetune], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MONAI's own UNETR, at patch 16, takes images of one size only."""
    split = make_dataset(tmp_path / "images", cases=8, dims=2)
    network = {"name": "vit_tiny", "patch_size": [16, 16], "hidden_size": 12, "mlp_size": 24, "layers": 12, "feature_size": 2}
    settings = finetuning(split=split, store=tmp_path / "store", network=network, crop_size=[48, 32], steps=2,
                          validate_every=2, progressive=[[16, 32]])  # fmt: skip
    training, judging = sizes_seen(settings, monkeypatch, Segmentation)
    assert training == [[16, 32], [48, 32]]
    assert judging == {(48, 32)}


@pytest.mark.parametrize("dims", [2, 3])
def test_labels_shrink_with_their_images(dims: int, finetuning: Callable[..., Finetune]) -> None:
    """Each voxel is the mean of a block of the image; a label is that of one voxel in the block, not a mean of classes."""
    patch = {"name": "vit_tiny", "patch_size": [8] * dims, "hidden_size": 24, "mlp_size": 48, "layers": 2}
    settings = finetuning(crop_size=[32] * dims, progressive=[[16] * dims], network=patch, steps=4)
    small = torch.randint(0, 5, (2, 1, *[16] * dims), dtype=torch.uint8)
    label = small
    for axis in range(2, 2 + dims):
        label = label.repeat_interleave(2, axis)
    corner = (..., *[slice(None, None, 2)] * dims)  # one voxel of each block
    noise = torch.zeros(label.shape)
    noise[corner] = 2.0**dims
    image, label[corner] = label + noise, 200
    resizing = Resizing(settings)
    resizing.before_step(2)
    batch = resizing({"image": image, "label": label, "id": ["a", "b"]})
    torch.testing.assert_close(batch["image"], small + torch.ones(small.shape))
    assert torch.equal(batch["label"], small)
    assert batch["label"].dtype == torch.uint8
    assert batch["id"] == ["a", "b"]
    resizing.before_step(3)
    whole = {"image": label, "label": label}
    assert resizing(whole) is whole


def test_every_size_has_an_equal_share_of_the_steps(classifying: Callable[..., Finetune]) -> None:
    settings = classifying(progressive=[[8, 8], [16, 16], [24, 24]], steps=1000)
    counted = [sum(size_at(settings, step) == size for step in range(1, 1001)) for size in settings.sizes]
    assert counted == [250] * 4
    sides = [size_at(settings, step)[0] for step in range(1, 1001)]
    assert sides == sorted(sides)
