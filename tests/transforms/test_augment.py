"""Augmentation for fine-tuning: image and label move together, types and shapes stay."""

import pickle

import pytest
import torch
from monai.data import MetaTensor

from transforms.augment import RandQuarterTurnd, augment_image, augment_segmentation

STRONG = {"flip_prob": 0.5, "rotate90_prob": 0.5, "affine_prob": 0.5, "noise_prob": 0.5, "contrast_prob": 0.5}


def case(shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """An image of blocks whose label is the block's number, so that one can be read from the other."""
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    label[(0, *(slice(n // 4, n // 2) for n in shape))] = 1
    label[(0, *(slice(n // 2, n // 2 + 3) for n in shape))] = 2
    return {"image": label.float() / 2, "label": label}


@pytest.mark.parametrize("shape", [(16, 16), (16, 12), (16, 12, 16), (10, 12, 14)])
def test_image_and_label_move_together(shape: tuple[int, ...]) -> None:
    data = case(shape)
    kept = {key: x.clone() for key, x in data.items()}
    augment = augment_segmentation(len(shape), flip_prob=0.5, rotate90_prob=0.7, shift_prob=0.0).set_random_state(seed=0)
    seen = set()
    for _ in range(30):
        out = augment(data)
        assert out["image"].shape == data["image"].shape
        assert torch.equal(out["image"] * 2, out["label"].float())
        seen.add(tuple(out["label"].flatten().tolist()))
    assert len(seen) > 2
    assert all(torch.equal(data[key], kept[key]) for key in data)


@pytest.mark.parametrize("shape", [(20, 16), (16, 12, 20)])
def test_strong_settings_keep_types_and_input_and_replay(shape: tuple[int, ...]) -> None:
    data = case(shape)
    kept = {key: x.clone() for key, x in data.items()}
    augment = augment_segmentation(len(shape), **STRONG).set_random_state(seed=1)
    first = [augment(data) for _ in range(12)]
    again = [pickle.loads(pickle.dumps(augment)).set_random_state(seed=1)(data) for _ in range(1)]
    for out in first:
        assert type(out["image"]) is type(out["label"]) is torch.Tensor
        assert (out["image"].dtype, out["label"].dtype) == (torch.float32, torch.uint8)
        assert set(out["label"].unique().tolist()) <= {0, 1, 2}
        assert out["image"].isfinite().all()
    assert torch.equal(first[0]["image"], again[0]["image"])
    assert len({float(out["image"].sum()) for out in first}) > 6
    assert all(torch.equal(data[key], kept[key]) for key in data)


@pytest.mark.parametrize("shape", [(20, 16), (16, 12, 20)])
def test_an_image_alone_changes_as_it_does_beside_its_label(shape: tuple[int, ...]) -> None:
    data = case(shape)
    strong = {"flip_prob": 0.5, "rotate90_prob": 0.5, "affine_prob": 0.7, "shift_prob": 0.0}  # draws after it differ
    alone, both = (make(len(shape), **strong) for make in (augment_image, augment_segmentation))
    for seed in range(10):
        changed = alone.set_random_state(seed=seed)({"image": data["image"], "class": 3})
        assert torch.equal(changed["image"], both.set_random_state(seed=seed)(data)["image"])
        assert (changed["class"], type(changed["image"])) == (3, torch.Tensor)


def test_nothing_happens_at_probability_zero_and_metadata_stays() -> None:
    data = case((12, 12, 8))
    augment = augment_segmentation(flip_prob=0, rotate90_prob=0, shift_prob=0)
    assert all(torch.equal(augment(data)[key], data[key]) for key in data)
    tracked = augment({key: MetaTensor(x) for key, x in data.items()})
    assert all(isinstance(x, MetaTensor) for x in tracked.values())


def test_quarter_turns_only_in_a_plane_of_equal_sides() -> None:
    x = torch.rand(1, 6, 4, 6)
    turn = RandQuarterTurnd(["image"], prob=1.0).set_random_state(seed=0)
    found = {next(k for k in range(4) if torch.equal(out, torch.rot90(x, k, (1, 3)))) for out in
             (torch.as_tensor(turn({"image": x})["image"]) for _ in range(30))}  # fmt: skip
    assert found == {1, 2, 3}
    assert torch.equal(turn({"image": x[:, :, :, :5]})["image"], x[:, :, :, :5])
