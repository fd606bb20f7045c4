"""Where a run computes and in which precision, as its settings and the machine have it."""

from collections.abc import Callable

import pytest
import torch

from medssl import device
from medssl.config import Finetune, Pretrain
from medssl.device import choose, has_tiny_convolutions


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_float32_on_a_gpu_is_computed_in_it(
    precision: str, pretraining: Callable[..., Pretrain], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in TF32, which keeps 10 bits and is torch's default for convolutions."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.backends.cuda.matmul.allow_tf32 = True  # False is its default, and what it is to be again
    compute = choose(pretraining(device="cuda", precision=precision))
    assert compute.autocast == {"float32": None, "bfloat16": torch.bfloat16}[precision]
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("vendor", "precision", "tried", "expected"),
    [
        ("AuthenticAMD", "float32", True, "medium"),
        ("AuthenticAMD", "float32", False, "highest"),
        ("AuthenticAMD", "bfloat16", True, "highest"),
        ("GenuineIntel", "float32", True, "highest"),
    ],
)
def test_float32_is_multiplied_by_onednn_on_amd_where_it_stays_float32(
    vendor: str,
    precision: str,
    tried: bool,
    expected: str,
    pretraining: Callable[..., Pretrain],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device.Path, "read_text", lambda path: f"vendor_id\t: {vendor}\n")
    monkeypatch.setattr(device, "multiplies_float32", lambda: tried)
    compute = choose(pretraining(device="cpu", precision=precision))
    torch.set_float32_matmul_precision("high")  # as another network of this process might have it
    with compute.context():
        assert torch.get_float32_matmul_precision() == expected


def test_products_of_float32_have_its_error(pretraining: Callable[..., Pretrain], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a product that is tried has another one, as on processors with AMX, everything is as elsewhere."""
    monkeypatch.setattr(device, "by_amd", lambda: True)
    choose(pretraining(device="cpu", precision="float32")).context()
    for rows, inner, columns in [(864, 768, 2304), (64, 3072, 64), (4096, 48, 192)]:
        torch.manual_seed(0)
        a, b = torch.randn(rows, inner), torch.randn(inner, columns)
        exact = a.double() @ b.double()
        assert (a @ b - exact).abs().max() < 3e-6 * exact.abs().max()  # measured at most 1e-6; that of bfloat16 is 2e-3


def test_a_product_of_bfloat16_is_told_from_one_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.multiplies_float32()
    product = torch.Tensor.__matmul__

    def narrow(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return product(a.bfloat16(), b.bfloat16()) if a.dtype == torch.float32 else product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", narrow)
    assert not device.multiplies_float32()


@pytest.mark.parametrize(
    ("crop", "patch", "tiny"),
    [
        ([32, 32, 32], [8, 8, 8], False),
        ([8, 32, 32], [8, 8, 8], True),  # maps of 2 x 8 x 8
        ([32, 32, 8], [8, 8, 8], True),
        ([32, 32, 8], [8, 8, 2], False),  # 8 x 8 x 4, halved in the plane alone
        ([32, 32], [32, 32], False),
    ],
)
def test_a_decoder_convolves_maps_of_half_the_largest_patch(
    crop: list[int], patch: list[int], tiny: bool, finetuning: Callable[..., Finetune], pretraining: Callable[..., Pretrain]
) -> None:
    """UNETR's, as 3x3x3 convolutions of maps 2 voxels wide have wrong gradients in bfloat16; a ViT itself has none."""
    words = {"crop_size": crop, "network": {"name": "vit_tiny", "patch_size": patch}}
    assert has_tiny_convolutions(finetuning(**words)) == tiny
    assert not has_tiny_convolutions(pretraining(**words, method="simclr"))
