"""Where a run computes and in which precision: chosen once, said at start."""

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medssl import launch
from medssl.config import Pretrain, Shared, ViTSettings
from medssl.problems import InputError, Problem
from medssl.ranks import world_size
from networks.blocks import can_compile, compile_blocks, recompute


@dataclass(frozen=True)
class Compute:
    """A device and the type of its matrix products; None is float32."""

    device: torch.device
    autocast: torch.dtype | None
    recomputed: bool = False  # the network's blocks in the backward
    compiled: bool | None = False  # the network's blocks; None: wanted, but this machine can't
    products: str = "highest"  # how float32 is multiplied, as `torch.set_float32_matmul_precision` has it

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"{torch.get_num_threads()} threads"
        blocks = {True: ", compiled", None: ", not compiled for want of a compiler", False: ", recomputed" * self.recomputed}
        many = f"{world_size()} ranks, each on " if world_size() > 1 else ""
        return f"{many}{self.device} ({name}), {'bfloat16 products' if self.autocast else 'float32'}{blocks[self.compiled]}"

    def place(self, network: nn.Module) -> None:
        """Move a network to the device, its blocks recomputed or compiled as the settings say."""
        network.to(self.device)
        if self.recomputed:
            recompute(network)
        if self.compiled:
            compile_blocks(network)

    def context(self) -> torch.autocast:
        """Autocast for forward passes; losses raise themselves to float32, which is multiplied in the same way from here on."""
        torch.set_float32_matmul_precision(self.products)
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)


def choose(settings: Shared) -> Compute:
    """Choose device and precision, and how float32 is multiplied; raises InputError for a GPU that is not there."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    elif world_size() > 1:
        torch.set_num_threads(launch.threads(launch.cores()))
    wanted = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda" and world_size() > 1:
        if device.index is not None:
            raise InputError([Problem("settings", "device", wanted, "auto, cuda or cpu: each rank takes a GPU of its own")])
        device = torch.device("cuda", launch.local_rank())
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError([Problem("settings", "device", wanted, f"one of {torch.cuda.device_count()} GPUs, or cpu")])
    if device.index is not None:
        torch.cuda.set_device(device)  # NCCL talks by the current one
    wrong = device.type == "cpu" and has_tiny_convolutions(settings)
    if wrong and settings.precision == "bfloat16":
        raise InputError([Problem("settings", "precision", "bfloat16", "float32: its gradients are wrong for maps this small")])
    bfloat16 = settings.precision == "bfloat16" or (settings.precision == "auto" and has_bfloat16(device) and not wrong)
    products = float32_products(device, alone=not bfloat16)
    compiled = settings.compile and (can_compile(device) or None)
    return Compute(device, torch.bfloat16 if bfloat16 else None, settings.recompute, compiled, products)


def float32_products(device: torch.device, alone: bool) -> str:
    """Have products of float32 computed in float32, not in TF32; if all are, on AMD's processors by oneDNN instead of MKL.

    MKL is slow there: float32 products of a ViT's shapes took oneDNN 0.45 of its time on a Zen 5 (torch 2.13). Beside
    bfloat16 the few that are left would only take more memory. torch leaves float32 to oneDNN where bfloat16 is allowed
    inside ("medium"), which oneDNN uses on processors with AMX alone, of which AMD makes none. A product is tried, in case.
    All by torch's older names, as its compiler refuses a mixture.
    """
    torch.backends.cudnn.allow_tf32 = False
    if alone and device.type == "cpu" and by_amd():
        torch.set_float32_matmul_precision("medium")
        if multiplies_float32():
            return "medium"
    torch.set_float32_matmul_precision("highest")
    return "highest"


def by_amd() -> bool:
    """Tell whether this machine's processor is AMD's, by what Linux or Windows calls it."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "AuthenticAMD" in platform.processor()


def multiplies_float32() -> bool:
    """Tell whether the CPU multiplies float32 with its error: 3e-6 of the largest number here, that of bfloat16 is 7e-4."""
    rows = torch.linspace(-1, 1, 256 * 256).sin().reshape(256, 256)
    exact = rows.double() @ rows.double().t()
    return bool(((rows @ rows.t()).double() - exact).abs().max() < 3e-5 * exact.abs().max())


def has_tiny_convolutions(settings: Shared) -> bool:
    """Tell whether the network convolves 3D maps under 3 voxels wide, whose weight gradients oneDNN gets wrong.

    Measured with torch 2.13 on a CPU: in bfloat16 they are wrong by any factor for 3x3x3 kernels on sides 1 and 2, the first
    being enough, and right from side 3 on, for 1x1x1 kernels and in 2D. A ViT has none, but UNETR's decoder convolves maps
    from half the largest patch on.
    """
    vit, unit = isinstance(settings.network, ViTSettings), settings.unit
    if settings.spatial_dims == 2 or (vit and isinstance(settings, Pretrain)):
        return False
    if vit:
        unit = [min((max(unit) + 1) // 2, side) for side in unit]
    return any(side // part < 3 for size in settings.sizes for side, part in zip(size, unit, strict=True))


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bfloat16 matrices itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
