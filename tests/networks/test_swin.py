"""The Swin transformer is MONAI's, and takes the self-supervised weights of Swin UNETR as they are, or refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import SwinUNETR
from torch import Tensor

from networks.autoencoder import autoencoder
from networks.heads import Classifier
from networks.swin import Swin, swin_unetr
from networks.transfer import TransferError, load_encoder, read_weights

SMALL: dict[str, Any] = {"width": 12, "depths": (2, 1, 1, 1), "heads": (1, 2, 3, 4), "window": 3}


def encoder(dims: int = 3, channels: int = 1, **changes: Any) -> Swin:
    return Swin(channels, [64] * dims, **SMALL | changes).eval()


def monais(dims: int = 3, **changes: Any) -> SwinUNETR:
    sizes = {"feature_size": 12, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 3, 4), "window_size": 3} | changes
    return SwinUNETR(in_channels=1, out_channels=3, spatial_dims=dims, **sizes).eval()


def published(network: SwinUNETR) -> dict[str, Tensor]:
    """The names of model_swinvit.pt, as `SwinUNETR.load_from` reads them, with the heads of its three pretexts."""
    names = {"mlp.linear1": "mlp.fc1", "mlp.linear2": "mlp.fc2"}
    state = {}
    for name, value in network.swinViT.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901
        state[f"module.{name}"] = value
    return state | {f"module.{head}.weight": torch.zeros(2) for head in ("rotation_head", "contrastive_head", "convTrans3d")}


@pytest.mark.parametrize("dims", [2, 3])
def test_it_is_monais(dims: int) -> None:
    theirs, ours = monais(dims), swin_unetr(encoder(dims), 3).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(2, 1, *[64, 32, 32][:dims])
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))


def test_published_weights_load_whole_and_answer_as_monais_own_loader_has_them(tmp_path: Path) -> None:
    state = published(monais())
    torch.save({"epoch": 4, "state_dict": state, "optimizer": {}}, tmp_path / "model_swinvit.pt")
    target, theirs = encoder(), monais()
    report = load_encoder(target, *read_weights(tmp_path / "model_swinvit.pt"))
    assert len(report.loaded) == len(target.state_dict())
    assert report.skipped == ("contrastive_head.weight", "convTrans3d.weight", "rotation_head.weight")
    assert (report.missing, report.adapted, report.resized) == ((), (), ())
    theirs.load_from({"state_dict": state})
    x = torch.rand(1, 1, 64, 32, 32)
    with torch.inference_mode():
        for ours, expected in zip(target(x), theirs.swinViT(x), strict=True):
            assert torch.equal(ours, expected)


def test_channels_are_adapted_and_the_encoder_is_found_in_other_networks() -> None:
    source, target = encoder(2), encoder(2, channels=3)
    for whole in (swin_unetr(source, 3), Classifier(source, 4), autoencoder(source)):
        assert load_encoder(target, whole.state_dict()).adapted == ("patch_embed.proj.weight",)
    x = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(target.features(x.expand(-1, 3, -1, -1)).pooled, source.features(x).pooled)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: published(monais(window_size=5)), r"found another architecture \(\d+ misfits"),
        (lambda: published(monais(depths=(2, 1, 2, 1))), r"tensors more: layers3.0.blocks.1"),
        (lambda: published(monais(depths=(1, 1, 1, 1))), r"missing layers1.0.blocks.1"),
        (lambda: published(monais(dims=2)), r"found first kernels of \[2, 2\], expected \[2, 2, 2\]"),
        (dict, "found 0 Swin transformers among 0 tensors"),
    ],
)
def test_anything_less_than_the_encoder_is_refused(state: Any, message: str) -> None:
    target = encoder()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(TransferError, match=message):
        load_encoder(target, {name.removeprefix("module."): value for name, value in state().items()})
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
