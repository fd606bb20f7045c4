"""Batches depend on the seed and the step, and on nothing else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.config import Finetune, Pretrain
from medssl.data import load_data
from medssl.loaders import VALIDATION, Crops, Steps, permutation, training_loader, validation_loader
from medssl.methods.recon_contrast import ReconContrast
from medssl.readers import read_image

Make = Callable[..., Pretrain]


def crops_of(settings: Pretrain, purpose: int = 0) -> Crops:
    parts = ["pretraining", "validation"]
    split, store = load_data(settings, parts, labels=False)
    part = "validation" if purpose == VALIDATION else "pretraining"
    return Crops(store, [case.id for case in split.part(part)], settings, ReconContrast.views(settings.method), purpose)


def test_same_batches_for_any_number_of_workers(pretraining: Make) -> None:
    hashes = [[b["data_hash"] for b in training_loader(crops_of(pretraining(workers=n)), 0)] for n in (0, 2, 4)]
    assert hashes[0] == hashes[1] == hashes[2]
    assert len({h for batch in hashes[0] for h in batch}) == 24  # 6 steps of 4 crops, no two alike


def test_a_loader_that_starts_later_goes_on_with_the_same_batches(pretraining: Make) -> None:
    crops = crops_of(pretraining())
    whole, rest = (list(training_loader(crops, start)) for start in (0, 4))
    for a, b in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("image", "view_0", "view_1"))


def test_ranks_share_a_step_between_them() -> None:
    whole = list(Steps(3, 6, batch_size=8))
    shares = [list(Steps(3, 6, 8, rank, 2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    assert whole[0] == list(range(24, 32))


def test_an_epoch_has_every_case_once_and_every_epoch_its_order() -> None:
    orders = [permutation(7, epoch, 50).tolist() for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]


def test_views_are_corrupted_copies_and_validation_is_fixed(pretraining: Make) -> None:
    crops = crops_of(pretraining(), VALIDATION)
    first, second = (next(iter(validation_loader(crops))) for _ in range(2))
    assert first["data_hash"] == second["data_hash"]
    assert not torch.equal(first["view_0"], first["image"])
    assert not torch.equal(first["view_0"], first["view_1"])


def test_crops_are_scaled_pieces_of_their_volume(pretraining: Make, volumes: Path) -> None:
    """The crop, found by its start, equals the file's voxels scaled by the file's own percentiles."""
    crops = crops_of(pretraining(crop_size=[16, 24, 8]))
    entry = next(iter(crops.store.entries.values()))
    volume = read_image(Path(entry.files[0][0]))
    real = volume.array * volume.slope + volume.intercept
    low, high = np.percentile(real, [0.5, 99.5])
    stored = crops.store.array(entry.image) * entry.slope + entry.intercept
    np.testing.assert_allclose([entry.percentile(0.5), entry.percentile(99.5)], [low, high], rtol=1e-6)
    np.testing.assert_allclose(np.sort(stored.ravel()), np.sort(real.ravel()), rtol=1e-6)  # reoriented, not changed


def test_labelled_crops_are_centred_on_objects(finetuning: Callable[..., Finetune]) -> None:
    settings = finetuning(foreground_share=1.0, crop_size=[8, 8, 8], network={"name": "vit_tiny", "patch_size": [8, 8, 8]})
    parts = ["training"]
    split, store = load_data(settings, parts, labels=True)
    crops = Crops(store, [case.id for case in split.part("training")], settings)
    centres = [crops[i]["label"][0, 3:6, 3:6, 3:6] for i in range(40)]
    assert all(centre.max() > 0 for centre in centres)
    assert {int(v) for centre in centres for v in centre.unique()} >= {1, 2, 3}


@pytest.mark.parametrize("key", ["image", "view_0"])
def test_padding_is_background(pretraining: Make, key: str) -> None:
    item = crops_of(pretraining(crop_size=[96, 32, 32]))[0]
    assert item[key].shape == (1, 96, 32, 32)
    if key == "image":
        assert (item[key][:, 0] == 0).all()
