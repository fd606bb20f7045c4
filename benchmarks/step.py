"""The pre-training step of system A: ours against the tutorial's, written with MONAI's own parts.

    python benchmarks/step.py [--crop 96] [--crops 2] [--threads 2] [--device cpu] [--json FILE]

Same weights, same two corrupted views of the same crops, same loss: ViT-B/16 autoencoder, L1 of the first restoration and
NT-Xent of both, at temperature 0.05. The reference is the tutorial's: a forward for each view, `ContrastiveLoss`, Adam, in
float32. Each way runs in a process of its own, in turns; the figures are medians of the turns, `memory` is the most that
process had above what its imports took.
"""

from collections.abc import Callable

import torch
from monai.losses import ContrastiveLoss
from monai.networks.nets import ViTAutoEnc
from torch import Tensor, nn
from torch.nn import functional

from medssl.config import Pretrain
from medssl.device import choose
from medssl.methods.recon_contrast import ReconContrast
from medssl.optimisers import optimiser_of, parameter_groups
from medssl.step import Step
from medssl.training import Training
from networks import build_encoder
from turns import in_turns, measured, parser_of, report

TEMPERATURE, RATE = 0.05, 1e-4
WAYS = ("tutorial", "medssl, float32", "medssl")


def main() -> None:
    """Time every way in turns and print the table."""
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=2, help="of a batch; each has two views")
    options = parser.parse_args()
    words = (options.crop, options.crops, options.threads, options.device, options.steps)
    report(in_turns(WAYS, options.turns, one_turn, *words), options)


def one_turn(way: str, crop: int, crops: int, threads: int, device: str, steps: int) -> dict[str, float]:
    """Take steps one way: seconds of the median one, the loss of the first, and memory."""

    def prepare() -> Callable[[], float]:
        on, random = torch.device(device), torch.Generator().manual_seed(0)
        image = torch.rand(crops, 1, *[crop] * 3, generator=random).to(on)
        views = [torch.rand(image.shape, generator=random).to(on) for _ in range(2)]
        return tutorial(image, views, on) if way == "tutorial" else ours(image, views, device, "float32" in way, threads)

    return measured(prepare, threads, device, steps)


def weights(crop: int) -> ViTAutoEnc:
    """The network of both, its weights drawn from one seed."""
    torch.manual_seed(0)
    return ViTAutoEnc(in_channels=1, img_size=(crop,) * 3, patch_size=(16,) * 3, hidden_size=768, mlp_dim=3072)


def tutorial(image: Tensor, views: list[Tensor], device: torch.device) -> Callable[[], float]:
    """A step as the tutorial takes it."""
    network = weights(image.shape[-1]).to(device)
    contrast = ContrastiveLoss(temperature=TEMPERATURE)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)

    def step() -> float:
        optimiser.zero_grad()
        first, second = network(views[0])[0], network(views[1])[0]
        reconstruction = functional.l1_loss(first, image)
        regular = contrast(first.flatten(1), second.flatten(1))
        loss = reconstruction + regular * reconstruction
        loss.backward()
        optimiser.step()
        return float(loss.item())

    return step


def ours(image: Tensor, views: list[Tensor], device: str, float32: bool, threads: int) -> Callable[[], float]:
    """A step of our own engine, as `ssl_pretrain.py` takes it."""
    settings = settings_of(image, device, float32, threads)
    compute = choose(settings)
    size = list(image.shape[2:])
    patches = {"hidden_size": 768, "mlp_size": 3072, "layers": 12, "heads": 12, "patch_size": [16] * 3}
    method = ReconContrast(build_encoder("vit_base", 1, size, **patches), settings)
    take_over(method.autoencoder, weights(image.shape[-1]))
    method.to(compute.device)
    groups = parameter_groups([(method, 1.0)])
    training = Training(method, groups, method, lambda start: [], None, "val_l1", False)
    step = Step(settings, compute, training, optimiser_of(settings, groups))
    batch = {"image": image, "view_0": views[0], "view_1": views[1], "id": [""] * len(image), "data_hash": [""]}
    return lambda: float(step(1, batch)["loss"])


def take_over(autoencoder: nn.Module, reference: nn.Module) -> None:
    """Give our autoencoder the reference's weights: its encoder's by name, the decoder's in their order."""
    theirs = reference.state_dict()
    decoder = [value for name, value in theirs.items() if name.startswith("conv3d_transpose")]
    state = autoencoder.state_dict()
    for name in state:
        state[name] = theirs[name.removeprefix("encoder.")] if name.startswith("encoder.") else decoder.pop(0)
    autoencoder.load_state_dict(state)


def settings_of(image: Tensor, device: str, float32: bool, threads: int) -> Pretrain:
    """The settings of the recipe, as far as a step reads them."""
    return Pretrain.model_validate({
        "split": "-", "out": "-", "steps": 100, "batch_size": len(image), "validate_every": 100, "lr": RATE,
        "optimiser": "adam", "crop_size": list(image.shape[2:]), "intensity": "percentile", "network": "vit_base",
        "method": {"name": "recon_contrast", "temperature": TEMPERATURE}, "device": device, "threads": threads,
        "precision": "float32" if float32 else "auto",
    })  # fmt: skip


if __name__ == "__main__":
    main()
