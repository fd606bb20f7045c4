"""The masked autoencoder: what the encoder sees, where patches go, fixed positions."""

import math
from typing import Any

import pytest
import torch

from networks.masked_autoencoder import MaskedAutoEncoder, sincos_positions
from networks.vit import ViT

CASES = [
    (1, (16, 24), (8, 4)),
    (2, (24, 16), (8, 8)),
    (3, (16, 8, 24), (8, 4, 8)),
    (2, (16, 16, 16), (8, 8, 8)),
]


def network(
    channels: int, image: tuple[int, ...], patch: tuple[int, ...], ratio: float = 0.5, **sizes: Any
) -> MaskedAutoEncoder:
    torch.manual_seed(0)
    encoder = ViT(channels, image, patch, hidden_size=24, mlp_size=48, layers=2, heads=3)
    return MaskedAutoEncoder(encoder, ratio, **{"decoder_width": 16, "decoder_layers": 2, "decoder_heads": 2} | sizes)


@pytest.mark.parametrize(("channels", "image", "patch"), CASES)
def test_patches_are_cut_in_the_order_of_the_tokens_and_put_back(
    channels: int, image: tuple[int, ...], patch: tuple[int, ...]
) -> None:
    mae = network(channels, image, patch)
    x = torch.rand(2, channels, *image)
    patches = mae.patchify(x)
    assert patches.shape == (2, math.prod(mae.encoder.grid), math.prod(patch) * channels)
    assert torch.equal(mae.unpatchify(patches), x)
    for number, corner in enumerate(torch.cartesian_prod(*(torch.arange(n) for n in mae.encoder.grid)).tolist()):
        block = x[(..., *(slice(c * p, (c + 1) * p) for c, p in zip(corner, patch, strict=True)))]
        assert torch.equal(patches[:, number], block.movedim(1, -1).flatten(1))


@pytest.mark.parametrize(("channels", "image", "patch"), CASES)
def test_the_prediction_knows_only_the_kept_patches(channels: int, image: tuple[int, ...], patch: tuple[int, ...]) -> None:
    """Other voxels under the mask change nothing, to the last bit; other voxels beside it do."""
    mae = network(channels, image, patch)
    x, other = torch.rand(2, 2, channels, *image).unbind()
    noise = torch.rand(2, math.prod(mae.encoder.grid))
    prediction, masked = mae(x, noise)
    assert masked.sum(1).tolist() == [masked.shape[1] - mae.kept] * 2
    cut = masked.unsqueeze(-1)
    hidden = mae.unpatchify(torch.where(cut, mae.patchify(other), mae.patchify(x)))
    assert torch.equal(mae(hidden, noise)[0], prediction)
    shown = mae.unpatchify(torch.where(cut, mae.patchify(x), mae.patchify(other)))
    assert (mae(shown, noise)[0] - prediction).abs().amin((1, 2)).max() > 0


def test_the_patches_with_the_least_noise_are_kept() -> None:
    mae = network(1, (16, 24), (8, 8), ratio=0.5)
    noise = torch.tensor([[0.9, 0.1, 0.8, 0.2, 0.3, 0.7]])
    assert mae(torch.rand(1, 1, 16, 24), noise)[1].tolist() == [[True, False, True, False, False, True]]


def test_an_encoder_that_sees_all_is_the_plain_encoder() -> None:
    mae = network(1, (16, 24), (8, 8))
    x = torch.rand(2, 1, 16, 24)
    everything = torch.arange(6).expand(2, -1)
    assert torch.equal(mae.encode_kept(x, everything), mae.encoder(x)[0])
    assert torch.equal(mae.encode_kept(x, everything).mean(1), mae.encoder.features(x).pooled)


def test_a_patch_keeps_its_position_in_the_decoder() -> None:
    """The same kept patches, encoded alike, predict otherwise when they stand elsewhere; slowly put together here."""
    mae = network(1, (16, 24), (8, 8))
    latent = torch.rand(2, 3, 24)
    kept = torch.tensor([[0, 2, 5], [1, 3, 4]])
    rows = []
    for b in range(2):
        tokens = mae.mask_token[0].repeat(6, 1)
        for place, number in enumerate(kept[b].tolist()):
            tokens[number] = mae.to_decoder(latent[b, place])
        x = (tokens + mae.positions[0]).unsqueeze(0)
        for block in mae.blocks:
            x = block(x)
        rows.append(mae.head(mae.norm(x)))
    torch.testing.assert_close(mae.decode(latent, kept), torch.cat(rows))


def test_the_draw_follows_the_seed() -> None:
    mae, x = network(1, (16, 24), (8, 4)), torch.rand(4, 1, 16, 24)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(mae(x)[1])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert len({tuple(row) for row in draws[0].tolist()}) > 1  # every image has its own


@pytest.mark.parametrize(("grid", "width"), [((3, 5), 16), ((2, 3, 4), 24), ((2, 3, 4), 32), ((1, 4), 10)])
def test_positions_against_the_slow_formula(grid: tuple[int, ...], width: int) -> None:
    count = width // (2 * len(grid))
    expected = []
    for number in range(math.prod(grid)):
        rest, index = number, list[int]()
        for size in reversed(grid):
            rest, i = divmod(rest, size)
            index.insert(0, i)
        row = list[float]()
        for i in index:
            row += [math.sin(i / 10000 ** (j / count)) for j in range(count)]
            row += [math.cos(i / 10000 ** (j / count)) for j in range(count)]
        expected.append(row + [0.0] * (width - len(row)))
    positions = sincos_positions(grid, width)
    torch.testing.assert_close(positions, torch.tensor([expected]))
    assert len(set(map(tuple, positions[0].tolist()))) == math.prod(grid)


def test_every_trainable_parameter_gets_a_gradient_and_the_positions_are_fixed() -> None:
    mae = network(2, (16, 16, 16), (8, 8, 8))
    prediction, masked = mae(torch.rand(2, 2, 16, 16, 16))
    prediction[masked].square().mean().backward()
    assert [n for n, p in mae.named_parameters() if p.requires_grad and p.grad is None] == []
    assert not any("positions" in n and "encoder" not in n for n in mae.state_dict())


def test_it_trains_under_bfloat16_autocast() -> None:
    mae = network(1, (16, 24), (8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction, _ = mae(torch.rand(2, 1, 16, 24))
    prediction.float().mean().backward()
    assert prediction.isfinite().all()


@pytest.mark.parametrize(
    ("ratio", "sizes", "message"),
    [
        (0.0, {}, "mask_ratio: found 0.0, expected one that keeps and masks some of 6 patches"),
        (0.99, {}, "mask_ratio: found 0.99, expected"),
        (0.5, {"decoder_heads": 3}, "decoder_width: found 16, expected a multiple of decoder_heads 3"),
        (0.5, {"decoder_width": 2}, "decoder_width: found 2, expected 4 or more for 2 axes"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(ratio: float, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(1, (16, 24), (8, 8), ratio, **sizes)


def test_a_ratio_is_not_rounded_down_by_its_binary_form() -> None:
    """10 * (1 - 0.9) is 0.9999999999999998: one patch is kept, not none."""
    assert network(1, (16, 40), (8, 8), 0.9).kept == 1
    assert network(1, (16, 24), (8, 8), 0.75).kept == 1


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image: found \[24, 16\] voxels, expected \[16, 24\]"):
        network(1, (16, 24), (8, 8))(torch.rand(1, 1, 24, 16))
