"""Augmentation for fine-tuning: image and label move together, types and shapes stay."""

import pickle

import pytest
import torch
from monai.data import MetaTensor

from transforms.augment import RandChannelDropoutd, RandQuarterTurnd, augment_image, augment_segmentation

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


@pytest.mark.parametrize("spatial", [(6, 5), (4, 5, 3)])
def test_channels_go_as_often_as_said_but_never_the_last(spatial: tuple[int, ...]) -> None:
    x = torch.rand(3, *spatial) + 0.1
    two = x.clone()
    two[1] = 0  # a patient who lacks it anyway
    drop = RandChannelDropoutd(["image"], 0.4).set_random_state(seed=0)
    left = {
        name: torch.stack([drop({"image": image, "class": 1})["image"].flatten(1).any(1) for _ in range(2000)])
        for name, image in (("three", x), ("two", two))
    }
    assert all(rows.any(1).all() for rows in left.values())
    # all of n channels would go with probability .4^n, and then one of them stays
    torch.testing.assert_close(left["three"].float().mean(0), torch.full((3,), 0.6 + 0.4**3 / 3), atol=0.04, rtol=0)
    torch.testing.assert_close(left["two"].float().mean(0), torch.tensor([0.68, 0.0, 0.68]), atol=0.04, rtol=0)
    always = RandChannelDropoutd(["image"], 1.0).set_random_state(seed=0)
    kept = torch.stack([always({"image": x})["image"] for _ in range(30)])
    assert kept.flatten(2).any(2).sum(1).tolist() == [1] * 30
    assert ((kept == 0) | (kept == x)).all()
    assert (x > 0).all()  # the input is as it was


def test_a_missing_channel_stays_zero_and_a_dropped_one_is_exactly_zero() -> None:
    x = torch.rand(3, 12, 10) + 0.1
    x[2] = 0
    augment = augment_image(2, **STRONG, shift_prob=1.0, channel_dropout=0.3).set_random_state(seed=3)
    out = [augment({"image": x})["image"] for _ in range(40)]
    assert all(type(image) is torch.Tensor and image[:2].any() and not image[2].any() for image in out)
    dropped = [image for image in out if not image[0].any() or not image[1].any()]
    assert 8 < len(dropped) < 40
    dark = augment_image(2, shift_prob=1.0, shift=0.5)({"image": torch.zeros(1, 8, 8)})["image"]
    assert dark.any()  # one channel alone is no missing one, only dark
    again = augment.set_random_state(seed=3)({"image": x})["image"]
    assert torch.equal(again, out[0])
