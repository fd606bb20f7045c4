"""Batches depend on the seed and the step, and on nothing else."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from phantoms import make_classes

from medssl import loaders
from medssl.config import Finetune, Pretrain
from medssl.data import load_data
from medssl.loaders import (
    VALIDATION,
    Crops,
    Steps,
    epoch_order,
    item_hash,
    joined,
    side_by_side,
    training_loader,
    validation_loader,
)
from medssl.methods.recon_contrast import ReconContrast
from medssl.methods.simclr import SimCLR
from medssl.problems import InputError
from medssl.splits import Case
from medssl.store import Entry, Extent, Store

Make = Callable[..., Pretrain]


def crops_of(settings: Pretrain, purpose: int = 0) -> Crops:
    parts = ["pretraining", "validation"]
    split, store = load_data(settings, parts, labels=False)
    part = "validation" if purpose == VALIDATION else "pretraining"
    return Crops(store, split.part(part), settings, ReconContrast.views(settings), purpose)


def test_same_batches_for_any_number_of_workers(pretraining: Make) -> None:
    hashes = [[b["data_hash"] for b in training_loader(crops_of(pretraining(workers=n)), 0)] for n in (0, 2, 4)]
    assert hashes[0] == hashes[1] == hashes[2]
    assert len({h for batch in hashes[0] for h in batch}) == 24  # 6 steps of 4 crops, no two alike


def test_a_loader_that_starts_later_goes_on_with_the_same_batches(pretraining: Make) -> None:
    crops = crops_of(pretraining())
    whole, rest = (list(training_loader(crops, start)) for start in (0, 4))
    for a, b in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("image", "view_0", "view_1"))


@pytest.mark.parametrize("changes", [{}, {"crop_size": [96, 32, 32]}], ids=["read into the batch", "padded"])
def test_a_batch_is_its_items_and_no_later_batch_touches_it(pretraining: Make, changes: dict[str, Any]) -> None:
    crops = crops_of(pretraining(**changes))
    crops.transform = None
    for step, batch in enumerate(list(training_loader(crops, 0))):
        items = [crops[4 * step + k] for k in range(4)]
        assert batch["data_hash"] == [item["data_hash"] for item in items]
        assert torch.equal(batch["image"], torch.stack([item["image"] for item in items]))


def test_only_crops_side_by_side_are_a_batch_without_a_copy() -> None:
    batch = torch.rand(3, 1, 4, 4)
    assert side_by_side(list(batch))
    assert torch.equal(joined(list(batch)), batch)
    assert joined(list(batch)).data_ptr() == batch.data_ptr()
    others = [[batch[1], batch[0]], [batch[0], batch[2]], [batch[0], batch[1].clone()], [batch[0].mT, batch[1].mT]]
    assert not any(side_by_side(tensors) for tensors in others)


def test_ranks_share_a_step_between_them() -> None:
    whole = list(Steps(3, 6, batch_size=8))
    shares = [list(Steps(3, 6, 8, rank, 2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    assert whole[0] == list(range(24, 32))


def test_ranks_share_each_part_of_a_step() -> None:
    """Part k of a step is the same crops on any number of ranks: items k * 6 .. k * 6 + 5."""
    shares = [next(iter(Steps(1, 2, 12, rank, 3, parts=2))) for rank in range(3)]
    assert shares == [[12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23]]


def test_an_epoch_has_every_case_once_and_every_epoch_its_order() -> None:
    orders = [epoch_order(7, epoch, np.full(50, 3.0)).tolist() for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]


def test_places_are_given_by_weight() -> None:
    """An epoch gives each case its share rounded up or down; over many epochs the mean is the share."""
    weights = np.array([1.0, 2.0, 0.5, 8.0, 0.01, 4.49])
    counts = np.array([np.bincount(epoch_order(0, epoch, weights), minlength=6) for epoch in range(4000)])
    shares = weights / weights.sum() * 6
    assert (counts.sum(1) == 6).all()
    assert (np.abs(counts - shares) < 1).all()
    np.testing.assert_allclose(counts.mean(0), shares, atol=4 * np.sqrt(0.25 / 4000))  # a count varies by at most 1


def test_rare_classes_come_as_often_as_common_ones(finetuning: Callable[..., Finetune]) -> None:
    """One case of nine has class 1, all have class 2: with classes balanced half of the crops are centred on each."""
    settings = finetuning(balance_classes=True, foreground_share=1.0)
    store = Store([], [])
    for number in range(9):
        entry = Entry(str(number), "", 1, 0, np.eye(4), (1.0,) * 3, np.zeros((1, 201), np.float32), "", 3, (), {})
        places = {2: [[32, 32, 32]]} | ({1: [[64, 64, 64]]} if number == 0 else {})
        arrays = {f"positions-{k}": Extent(0, 0, "<i2", (len(p), 3)) for k, p in places.items()}
        store.entries[str(number)] = dataclasses.replace(entry, arrays=arrays | {"image": Extent(0, 0, "<i2", (1, 96, 96, 96))})
    crops = Crops(store, [Case(str(number), "", ()) for number in range(9)], settings)
    assert crops.rarity == {1: 1.0, 2: 1 / 9}
    np.testing.assert_allclose(crops.weights / crops.weights.sum(), [(1 + 1 / 9) / 2, *[1 / 18] * 8])
    asked: list[int] = []
    store.array = lambda extent: asked.append(extent.offset) or np.array([[32, 32, 32]])  # type: ignore[method-assign]
    entry = dataclasses.replace(
        store.entries["0"],
        arrays=store.entries["0"].arrays | {f"positions-{k}": Extent(0, k, "<i2", (1, 3)) for k in (1, 2)},
    )
    random = np.random.default_rng(0)
    for _ in range(2000):
        crops.start(entry, random)
    assert np.mean([k == 1 for k in asked]) == pytest.approx(0.9, abs=0.02)  # 1 to 1/9


@pytest.mark.parametrize("shape", [(1, 5, 6, 7), (1, 128, 64, 64), (2, 33, 47)])
def test_the_hash_of_a_batch_sees_every_change(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape)
    same = item_hash({"image": image})
    assert item_hash({"image": image.clone(), "id": "other"}) == same
    changed = image.clone()
    changed.view(-1)[-1] += 1e-7
    others = [*(image.flip(axis) for axis in range(1, image.ndim)), image.transpose(1, 2), image.roll(1, -1), changed]
    assert len({same, *(item_hash({"image": other}) for other in others)}) == 1 + len(others)
    assert item_hash({"image": image, "label": image}) != same


def test_views_are_corrupted_copies_and_validation_is_fixed(pretraining: Make) -> None:
    crops = crops_of(pretraining(), VALIDATION)
    first, second = (next(iter(validation_loader(crops))) for _ in range(2))
    assert first["data_hash"] == second["data_hash"]
    assert not torch.equal(first["view_0"], first["image"])
    assert not torch.equal(first["view_0"], first["view_1"])


def test_crops_are_pieces_of_their_volume_scaled_by_its_percentiles(finetuning: Callable[..., Finetune]) -> None:
    """Image and label of each crop, voxel by voxel, against the whole prepared volume; that is the file's, reoriented."""
    settings = finetuning(crop_size=[16, 24, 8])
    split, store = load_data(settings, ["training"], labels=True)
    crops = Crops(store, split.part("training"), settings)
    starts: list[Any] = []
    draw = crops.start
    crops.start = lambda *words: starts.append(draw(*words)) or starts[-1]  # type: ignore[method-assign]
    for item in (crops[number] for number in range(6)):
        entry = store.entries[item["id"]]
        volume, label = (nibabel.as_closest_canonical(nibabel.load(path)).get_fdata() for path, _ in entry.files)
        box = tuple(slice(a, a + n) for a, n in zip(starts[-1], settings.crop_size, strict=True))
        low, high = np.percentile(volume, [0.5, 99.5])
        np.testing.assert_allclose(item["image"][0], np.clip((volume[box] - low) / (high - low), 0, 1), atol=2e-6)
        assert np.array_equal(item["label"][0], label[box])
    assert len({tuple(start) for start in starts}) == 6


def test_each_channel_is_scaled_by_its_own_percentiles(tmp_path: Path, finetuning: Callable[..., Finetune]) -> None:
    random = np.random.default_rng(0)
    channels = [random.integers(0, 90, (32, 32, 32)).astype(np.int16), random.normal(7, 9, (32, 32, 32)).astype(np.float32)]
    for name, array in zip(("t1", "t2"), channels, strict=True):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii")
    content = {"modality": {"0": "T1", "1": "T2"}, "pretraining": [{"id": "a", "image": ["t1.nii", "t2.nii"]}]}
    (tmp_path / "two.json").write_text(json.dumps(content))
    settings = finetuning(split=tmp_path / "two.json", network="unet", store=None, pad=True)
    split, store = load_data(settings, ["pretraining"], labels=False)
    crops = Crops(store, split.part("pretraining"), settings)
    for crop, channel in zip(crops[0]["image"], channels, strict=True):
        low, high = np.percentile(channel, [0.5, 99.5])
        np.testing.assert_allclose(crop, np.clip((channel - low) / (high - low), 0, 1), atol=2e-6)


def test_labelled_crops_are_centred_on_objects(finetuning: Callable[..., Finetune]) -> None:
    settings = finetuning(foreground_share=1.0, crop_size=[8, 8, 8], network={"name": "vit_tiny", "patch_size": [8, 8, 8]})
    parts = ["training"]
    split, store = load_data(settings, parts, labels=True)
    crops = Crops(store, split.part("training"), settings)
    centres = [crops[i]["label"][0, 3:6, 3:6, 3:6] for i in range(40)]
    assert all(centre.max() > 0 for centre in centres)
    assert {int(v) for centre in centres for v in centre.unique()} >= {1, 2, 3}


@pytest.mark.parametrize("key", ["image", "view_0"])
def test_padding_is_background(pretraining: Make, key: str) -> None:
    item = crops_of(pretraining(crop_size=[96, 32, 32]))[0]
    assert item[key].shape == (1, 96, 32, 32)
    if key == "image":
        assert (item[key][:, 0] == 0).all()


def test_a_fold_is_kept_for_validation(volumes: Path, tmp_path: Path, pretraining: Make) -> None:
    """Its cases are the validation part, and pre-training sees none of their patients."""
    content = json.loads(volumes.read_text())
    cases = [dict(case, fold=number % 3) for number, case in enumerate(content["training"] + content["validation"])]
    content |= {"training": cases, "pretraining": cases}
    del content["validation"]
    (tmp_path / "folds.json").write_text(json.dumps(content))
    settings = pretraining(split=tmp_path / "folds.json", data_root=volumes.parent, fold=1)
    split, store = load_data(settings, ["pretraining", "validation"], labels=False)
    held = {case["id"] for case in cases if case["fold"] == 1}
    assert {case.id for case in split.part("validation")} == held
    assert {case.id for case in split.part("pretraining")} == {case["id"] for case in cases} - held
    assert set(store.entries) == {case["id"] for case in cases}
    with pytest.raises(InputError, match=r"folds\.json: fold: found 7, expected 0, 1, 2"):
        load_data(pretraining(split=tmp_path / "folds.json", data_root=volumes.parent, fold=7), ["validation"], labels=False)


def test_axial_slices_of_volumes(pretraining: Make) -> None:
    """A crop is a slice of the prepared volume, of any depth, and the views are made of it."""
    network = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 2}
    settings = pretraining(slices=True, crop_size=[32, 32], network=network, steps=30)
    crops = crops_of(settings)
    depths = set()
    for index in range(40):
        item = crops[index]
        assert item["image"].shape == item["view_0"].shape == (1, 32, 32)
        volume = scaled(torch.from_numpy(crops.store.array(crops.store.entries[item["id"]].image)), crops, item["id"])
        windows = volume.unfold(1, 32, 1).unfold(2, 32, 1).flatten(1, 2).movedim(1, 0)  # (place, c, depth, 32, 32)
        found = (windows == item["image"][None, :, None]).flatten(3).all(3).all(1).nonzero()
        assert len(found) >= 1
        depths.add(int(found[0, 1]))
    assert len(depths) > 10


def scaled(stored: torch.Tensor, crops: Crops, case: str) -> torch.Tensor:
    return loaders.scaled(stored, crops.store.entries[case], crops.settings)


def test_a_region_is_read_for_views_to_be_cut_from(pretraining: Make) -> None:
    settings = pretraining(region=[40, 40, 40], method="simclr")
    split, store = load_data(settings, ["pretraining"], labels=False)
    item = Crops(store, split.part("pretraining"), settings, SimCLR.views(settings))[0]
    assert item["image"].shape == (1, 40, 40, 40)
    assert item["view_0"].shape == item["view_1"].shape == (1, 32, 32, 32)


def test_no_validation_batch_holds_a_single_crop(pretraining: Make) -> None:
    for size in (2, 3, 4, 5, 7, 11):
        crops = crops_of(pretraining(batch_size=size))
        crops.cases = crops.cases[:11]
        sizes = [len(batch["id"]) for batch in validation_loader(crops)]
        assert sum(sizes) == len(crops)
        assert min(sizes) >= min(size, len(crops))
        assert max(sizes) < 2 * size


def test_labels_reach_pretraining_only_where_a_setting_asks(tmp_path: Path) -> None:
    folder = make_classes(tmp_path)
    base = {"split": folder, "out": tmp_path / "out", "steps": 1, "batch_size": 4, "validate_every": 1, "lr": 1, "workers": 0}
    base |= {"crop_size": [32, 32], "intensity": "percentile", "network": {"name": "resnet18", "width": 4}}
    for method, classes in (({"name": "pairs", "by": "class"}, True), ({"name": "pairs"}, False), ({"name": "simclr"}, False)):
        settings = Pretrain.model_validate(base | {"method": method})
        split, store = load_data(settings, ["pretraining"], labels=False)
        cases = split.part("pretraining")
        batch = next(iter(training_loader(Crops(store, cases, settings), 0)))
        assert ("class" in batch) == classes
        assert all((case.label is not None) == classes for case in cases)
        if classes:
            truth = {case.id: case.label for case in split.part("training")}
            assert batch["class"].tolist() == [truth[case] for case in batch["id"]]


def test_crops_lie_around_the_foreground_or_anywhere(pretraining: Make) -> None:
    """Their first voxels follow the foreground's own places, or are uniform over all that are possible."""
    for crops, wanted in (("foreground", False), ("anywhere", True)):
        made = crops_of(pretraining(crops=crops, foreground_above=0.5))
        entry = next(iter(made.store.entries.values()))
        assert entry.foreground is not None
        starts = np.stack([made.start(entry, np.random.default_rng(seed)) for seed in range(400)])
        room = np.array(entry.shape) - made.settings.read_size
        expected = np.array([1 / (free + 1) for free in room])  # of each place along an axis
        at_an_end = ((starts == 0) | (starts == room)).mean(0)
        uniform = np.abs(at_an_end - np.minimum(2 * expected, 1)) < 0.12  # 5 standard deviations of 400 draws
        assert uniform.all() == wanted
