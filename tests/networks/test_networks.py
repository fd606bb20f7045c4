"""Encoders and decoders against MONAI's own networks."""

from unittest import mock

import pytest
import torch
from monai.networks.nets import UNETR, ViTAutoEnc
from monai.networks.nets import ViT as MonaiViT

from networks.autoencoder import ViTAutoEncoder, two_factors
from networks.unetr import PatchUNETR, unetr
from networks.vit import ViT, resize_positions

SIZES = {"hidden_size": 24, "mlp_size": 48, "heads": 3}


@pytest.mark.parametrize(
    ("image", "patch"),
    [((16, 24), (8, 8)), ((32, 16), (16, 16)), ((16, 24, 8), (8, 8, 8)), ((16, 16, 8), (8, 8, 2)), ((12, 18), (6, 9))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_autoencoder_restores_the_shape_for_any_patch(image: tuple[int, ...], patch: tuple[int, ...], channels: int) -> None:
    network = ViTAutoEncoder(ViT(channels, image, patch, layers=2, **SIZES))
    x = torch.randn(2, channels, *image)
    assert network(x).shape == x.shape


def test_two_factors_multiply_to_the_patch() -> None:
    assert [two_factors(n) for n in (16, 8, 4, 2, 12, 7)] == [(4, 4), (4, 2), (2, 2), (2, 1), (4, 3), (7, 1)]


def test_autoencoder_is_monais_at_patch_16() -> None:
    theirs = ViTAutoEnc(1, (32, 32, 16), (16, 16, 16), hidden_size=24, mlp_dim=48, num_layers=2, num_heads=3).eval()
    ours = ViTAutoEncoder(ViT(1, (32, 32, 16), (16, 16, 16), layers=2, **SIZES)).eval()
    state = theirs.state_dict()
    decoder = {"0": "conv3d_transpose", "1": "conv3d_transpose_1"}
    ours.encoder.load_state_dict({k: v for k, v in state.items() if not k.startswith("conv3d")})
    ours.decoder.load_state_dict({f"{n}.{w}": state[f"{k}.{w}"] for n, k in decoder.items() for w in ("weight", "bias")})
    x = torch.randn(2, 1, 32, 32, 16)
    torch.testing.assert_close(ours(x), theirs(x)[0], atol=1e-5, rtol=1e-5)


def test_the_vit_has_monais_keys_and_outputs() -> None:
    theirs = MonaiViT(2, (16, 24), (8, 8), hidden_size=24, mlp_dim=48, num_layers=3, num_heads=3, spatial_dims=2).eval()
    ours = ViT(2, (16, 24), (8, 8), layers=3, **SIZES).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 2, 16, 24)
    tokens, hidden = theirs(x)
    features = ours.features(x)
    torch.testing.assert_close(features.pooled, tokens.mean(1), atol=1e-5, rtol=1e-5)
    # token number 4 of a 2 x 3 grid lies at row 1, column 1; the last map is normalised
    torch.testing.assert_close(features.maps[1][:, :, 1, 1], hidden[1][:, 4], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.maps[2][:, :, 1, 1], tokens[:, 4], atol=1e-5, rtol=1e-5)


def test_every_trainable_parameter_gets_a_gradient() -> None:
    network = unetr(ViT(1, (16, 16, 16), (8, 8, 8), layers=3, **SIZES), 3, 4)
    network(torch.randn(1, 1, 16, 16, 16)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_unetr_at_patch_16_is_monais() -> None:
    encoder = ViT(1, (32, 32, 16), (16, 16, 16), layers=12, **SIZES)
    network = unetr(encoder, 3, 8)
    theirs = UNETR(1, 3, (32, 32, 16), feature_size=8, hidden_size=24, mlp_dim=48, num_heads=3)
    assert isinstance(network, UNETR)
    theirs.load_state_dict(network.state_dict())
    x = torch.randn(1, 1, 32, 32, 16)
    torch.testing.assert_close(network.eval()(x), theirs.eval()(x), atol=1e-5, rtol=1e-5)


def test_patch_unetr_equals_monais_at_patch_16() -> None:
    """The general decoder, given MONAI's weights in order, gives MONAI's output: it is the same design."""
    theirs = unetr(ViT(1, (32, 16), (16, 16), layers=12, **SIZES), 3, 4).eval()
    ours = PatchUNETR(ViT(1, (32, 16), (16, 16), layers=12, **SIZES), 3, 4).eval()
    ours.vit.load_state_dict(theirs.vit.state_dict())
    ours.image_branch.load_state_dict(theirs.encoder1.state_dict())
    for branch, encoder in zip(ours.token_branches, (theirs.encoder2, theirs.encoder3, theirs.encoder4), strict=True):
        branch.load_state_dict(dict(zip(branch.state_dict(), encoder.state_dict().values(), strict=True)))
    pairs = zip(ours.decoders, (theirs.decoder2, theirs.decoder3, theirs.decoder4, theirs.decoder5), strict=True)
    for decoder, other in pairs:
        decoder.load_state_dict(other.state_dict())
    ours.out.load_state_dict(theirs.out.state_dict())
    x = torch.randn(2, 1, 32, 16)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("image", "patch"), [((16, 24), (8, 4)), ((16, 16, 8), (8, 8, 4)), ((32, 32, 8), (16, 16, 4))])
@pytest.mark.parametrize("image_branch", [True, False])
def test_unetr_for_other_patches(image: tuple[int, ...], patch: tuple[int, ...], image_branch: bool) -> None:
    """Without its image branch, what the encoder said of another image is all that it knows."""
    network = unetr(ViT(2, image, patch, layers=4, **SIZES), 5, 4, image_branch=image_branch).eval()
    one, other = torch.randn(2, 1, 2, *image)
    scores, said = network(one), network.vit(one)
    assert scores.shape == (1, 5, *image)
    assert not torch.allclose(network(other), scores)
    with mock.patch.object(network.vit, "forward", return_value=said):
        assert torch.equal(network(other), scores) == (not image_branch)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of patch_size"):
        ViT(1, (20, 16), (8, 8), **SIZES)
    with pytest.raises(ValueError, match="powers of two"):
        unetr(ViT(1, (12, 12), (6, 6), layers=2, **SIZES), 2)


@pytest.mark.parametrize(("image", "patch"), [((16, 24), (8, 4)), ((16, 16, 8), (8, 8, 4))])
def test_at_its_own_size_the_vit_is_monais(image: tuple[int, ...], patch: tuple[int, ...]) -> None:
    ours = ViT(2, image, patch, layers=3, **SIZES).eval()
    theirs = MonaiViT(2, image, patch, hidden_size=24, mlp_dim=48, num_layers=3, num_heads=3, spatial_dims=len(image)).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 2, *image)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)  # sums in another order


@pytest.mark.parametrize(("image", "other"), [((16, 24), (32, 8)), ((16, 16, 8), (8, 24, 8))])
def test_images_of_another_size_get_interpolated_positions(image: tuple[int, ...], other: tuple[int, ...]) -> None:
    """As a network built for that size, given the resized position embeddings."""
    dims = len(image)
    ours, twin = (ViT(1, size, (8,) * dims, layers=2, **SIZES) for size in (image, other))
    state = ours.state_dict()
    state["patch_embedding.position_embeddings"] = resize_positions(
        ours.patch_embedding.position_embeddings, ours.grid, twin.grid
    )
    twin.load_state_dict(state)
    x = torch.randn(2, 1, *other)
    features, expected = ours.features(x), twin.features(x)
    assert torch.equal(features.pooled, expected.pooled)
    assert all(torch.equal(a, b) for a, b in zip(features.maps, expected.maps, strict=True))
    with pytest.raises(ValueError, match=r"image: found .* voxels, expected multiples of patch_size"):
        ours.features(torch.randn(1, 1, *(size + 1 for size in other)))


def test_positions_learn_from_small_crops_too() -> None:
    encoder = ViT(1, (16, 24), (8, 8), layers=2, **SIZES)
    encoder.features(torch.randn(1, 1, 8, 8)).pooled.square().sum().backward()
    assert encoder.patch_embedding.position_embeddings.grad.abs().sum() > 0


def test_the_decoders_take_images_of_another_size() -> None:
    encoder = ViT(1, (16, 24), (8, 8), layers=3, **SIZES)
    x = torch.randn(1, 1, 32, 16)
    assert ViTAutoEncoder(encoder)(x).shape == x.shape
    assert unetr(encoder, 3, 4)(x).shape == (1, 3, 32, 16)
