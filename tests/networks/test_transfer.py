"""Weights load or refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.networks.nets import ViT as MonaiViT
from monai.networks.nets import ViTAutoEnc

from networks.heads import Classifier
from networks.transfer import TransferError, adapt_channels, load_encoder, read_weights, write_weights
from networks.unetr import unetr
from networks.vit import ViT, resize_positions


def encoder(
    channels: int = 1, image: tuple[int, ...] = (32, 32, 32), patch: int = 16, hidden: int = 24, layers: int = 12
) -> ViT:
    return ViT(channels, image, (patch,) * len(image), hidden, 48, layers, 3)


def test_written_weights_load_whole(tmp_path: Path) -> None:
    source, target, x = encoder(), encoder(), torch.randn(1, 1, 32, 32, 32)
    write_weights(tmp_path / "e.safetensors", source, {"patch_size": [16, 16, 16]})
    tensors, plan = read_weights(tmp_path / "e.safetensors")
    report = load_encoder(target, tensors, plan)
    assert plan == {"patch_size": [16, 16, 16]}
    assert set(report.loaded) == set(source.state_dict())
    assert (report.resized, report.adapted, report.skipped, report.missing) == ((), (), (), ())
    torch.testing.assert_close(target(x)[0], source(x)[0])


def test_the_file_loads_into_monai_without_medssl(tmp_path: Path) -> None:
    """In a process that can't import medssl's packages: strictly, into ViT and into UNETR.vit."""
    write_weights(tmp_path / "encoder.safetensors", encoder(), {})
    script = """
import json, sys
from safetensors.torch import load_file
from monai.networks.nets import UNETR, ViT
weights = load_file("encoder.safetensors")
unetr = UNETR(1, 3, (32, 32, 32), hidden_size=24, mlp_dim=48, num_heads=3)
print(unetr.vit.load_state_dict(weights, strict=True))
vit = ViT(1, (32, 32, 32), (16, 16, 16), hidden_size=24, mlp_dim=48, num_layers=12, num_heads=3)
print(vit.load_state_dict(weights, strict=True))
assert not {"medssl", "networks"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("All keys matched") == 2


@pytest.mark.parametrize("make", [lambda e: unetr(e, 3, 8), lambda e: Classifier(e, 4), lambda e: e])
def test_an_encoder_is_found_inside_other_networks(make) -> None:  # type: ignore[no-untyped-def]
    source, target = encoder(), encoder()
    report = load_encoder(target, make(source).state_dict())
    assert len(report.loaded) == len(target.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True))


def test_the_tutorials_checkpoint_is_accepted(tmp_path: Path) -> None:
    """`state_dict` of MONAI's ViTAutoEnc, with the `cross_attn` keys that older versions wrote, under `module.`."""
    theirs = ViTAutoEnc(1, (32, 32, 32), (16, 16, 16), hidden_size=24, mlp_dim=48, num_layers=12, num_heads=3)
    state = {f"module.{k}": v for k, v in theirs.state_dict().items() if "norm_cross_attn" not in k}
    state["module.blocks.0.cross_attn.to_q.weight"] = torch.zeros(24, 24)
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {}}, tmp_path / "best.pt")
    target = encoder()
    report = load_encoder(target, *read_weights(tmp_path / "best.pt"))
    assert report.skipped == tuple(
        sorted(["blocks.0.cross_attn.to_q.weight", *(k for k in theirs.state_dict() if "conv3d" in k)])
    )
    assert len(report.missing) == 24  # weight and bias of norm_cross_attn in 12 blocks: nothing uses them
    x = torch.randn(1, 1, 32, 32, 32)
    torch.testing.assert_close(target(x)[0], theirs.norm(theirs(x)[1][-1]))


def test_positions_are_resized_as_a_smooth_field() -> None:
    """A field linear over space stays linear: at the middle of a finer grid it has the values between."""
    ramp = torch.linspace(0.5, 3.5, 4)  # the centres of 4 patches on an axis of length 4
    field = (ramp[:, None] + 10 * ramp[None, :]).reshape(1, 16, 1)
    finer = resize_positions(field, (4, 4), (8, 8)).reshape(8, 8)
    centres = (torch.arange(8) + 0.5) / 2
    expected = centres[:, None] + 10 * centres[None, :]
    torch.testing.assert_close(finer[1:-1, 1:-1], expected[1:-1, 1:-1])


def test_position_embeddings_of_another_image_size() -> None:
    source, target = encoder(image=(32, 48, 32)), encoder(image=(64, 32, 32))
    plan = {"image_size": [32, 48, 32], "patch_size": [16, 16, 16]}
    report = load_encoder(target, source.state_dict(), plan)
    assert report.resized == ("patch_embedding.position_embeddings",)
    assert "resized 1 (patch_embedding.position_embeddings)" in str(report)
    with pytest.raises(TransferError, match="found 12 position embeddings without a plan"):
        load_encoder(target, source.state_dict())


def test_position_embeddings_of_a_turned_grid_with_as_many_tokens() -> None:
    source, target = encoder(image=(32, 48, 32)), encoder(image=(48, 32, 32))
    positions, plan = "patch_embedding.position_embeddings", {"image_size": [32, 48, 32], "patch_size": [16, 16, 16]}
    assert load_encoder(target, source.state_dict(), plan).resized == (positions,)
    expected = resize_positions(source.state_dict()[positions], (2, 3, 2), (3, 2, 2))
    torch.testing.assert_close(target.state_dict()[positions], expected, rtol=0, atol=0)
    assert load_encoder(source, source.state_dict(), plan).resized == load_encoder(target, source.state_dict()).resized == ()
    with pytest.raises(TransferError, match="found 12 position embeddings, expected 18 as the plan says"):
        load_encoder(target, source.state_dict(), plan | {"image_size": [48, 48, 32]})


def test_channels_are_adapted_by_their_sum() -> None:
    torch.manual_seed(0)
    rgb = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(adapt_channels(rgb, 1), rgb.sum(1, keepdim=True))
    x = torch.randn(2, 1, 32, 32, 32)
    one, three = encoder(1), encoder(3)
    assert load_encoder(three, one.state_dict()).adapted == ("patch_embedding.patch_embeddings.weight",)
    torch.testing.assert_close(three(x.expand(-1, 3, -1, -1, -1))[0], one(x)[0], atol=1e-5, rtol=1e-5)


def with_qkv_bias() -> dict[str, torch.Tensor]:
    """MONAI's ViT with biases that the encoder has not: without them it would answer otherwise."""
    sizes = {"hidden_size": 24, "mlp_dim": 48, "num_layers": 12, "num_heads": 3}
    return dict(MonaiViT(1, (32, 32, 32), (16, 16, 16), qkv_bias=True, **sizes).state_dict())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: encoder(hidden=48).state_dict(), "another architecture"),
        (lambda: encoder(patch=8).state_dict(), "found patches of .8, 8, 8., expected .16, 16, 16."),
        (lambda: encoder(image=(32, 32)).state_dict(), "found patches of .16, 16., expected .16, 16, 16."),
        (lambda: encoder(layers=6).state_dict(), "found .* of 161 tensors .missing blocks.10"),
        (lambda: encoder(layers=13).state_dict(), "another architecture .* tensors more: blocks.12."),
        (with_qkv_bias, "another architecture .12 tensors more: blocks.0.attn.qkv.bias"),
        (lambda: torch.nn.Linear(2, 2).state_dict(), "found 0 vision transformers among 2 tensors"),
        (dict, "found 0 vision transformers"),
    ],
)
def test_anything_less_than_the_encoder_is_refused(state, message: str) -> None:  # type: ignore[no-untyped-def]
    target = encoder()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(TransferError, match=message):
        load_encoder(target, state())
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())


class Harmful:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return print, ("unpickled",)


@pytest.mark.parametrize("name", ["empty.safetensors", "empty.pt", "text.pt", "object.pt", "list.pt", "missing.pt"])
def test_files_that_are_no_weights(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    if name.startswith("empty"):
        path.touch()
    elif name == "text.pt":
        path.write_text(json.dumps({"a": 1}))
    elif name == "object.pt":
        torch.save({"model": Harmful()}, path)
    elif name == "list.pt":
        torch.save([torch.zeros(1)], path)
    with pytest.raises(TransferError, match=r"^found .*, expected "):
        read_weights(path)
    assert "unpickled" not in capfd.readouterr().out
