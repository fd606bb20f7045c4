"""The fine-tuning step of UNETR: ours against MONAI's UNETR, DiceCELoss and torch's AdamW in float32.

    python benchmarks/finetune_step.py [--crop 96] [--crops 1] [--classes 14] [--threads 2] [--device cpu] [--json FILE]

Same weights, same crops and labels: UNETR with ViT-B/16, Dice and cross-entropy, AdamW with rate 1e-4 and decay 1e-5; ours is
the step that `ssl_finetune.py` takes, which leaves biases and norms undecayed. The first losses must agree: to 1e-4 in
float32, to 1e-2 where products are bfloat16. Each way runs in a process of its own, in turns; the figures are medians of the
turns, `memory` is the most that process had above what its imports took.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNETR
from torch import Tensor

from medssl.config import Finetune
from medssl.device import choose
from medssl.finetune import training_of
from medssl.optimisers import optimiser_of
from medssl.splits import Split
from medssl.step import Step
from medssl.store import Store
from medssl.tasks.segmentation import Segmentation
from turns import in_turns, measured, parser_of, refuse_other_losses, report

RATE, DECAY = 1e-4, 1e-5
WAYS = ("MONAI", "medssl, float32", "medssl")
TOLERANCES = {"medssl, float32": 1e-4, "medssl": 1e-2}  # of the first loss, relative


def main() -> None:
    """Time every way in turns and print the table."""
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=1, help="of a batch")
    parser.add_argument("--classes", type=int, default=14, help="with the background")
    parser.add_argument(
        "--hidden", type=int, default=768, help="width of a token, a multiple of 12; its mlp has 4 times as much"
    )
    options = parser.parse_args()
    words = (options.crop, options.crops, options.classes, options.hidden, options.threads, options.device, options.steps)
    rows = in_turns(WAYS, options.turns, one_turn, *words)
    report(rows, options)
    refuse_other_losses(rows, TOLERANCES)


def one_turn(
    way: str, crop: int, crops: int, classes: int, hidden: int, threads: int, device: str, steps: int
) -> dict[str, float]:
    """Take steps one way: seconds of the median one, the loss of the first, and memory."""

    def prepare() -> Callable[[], float]:
        random = torch.Generator().manual_seed(0)
        image = torch.rand(crops, 1, *[crop] * 3, generator=random).to(device)
        label = torch.randint(classes, image.shape, generator=random, dtype=torch.uint8).to(device)
        if way == "MONAI":
            return theirs(image, label, classes, hidden)
        return ours(image, label, settings_of(image, hidden, device, "float32" in way, threads), classes)

    return measured(prepare, threads, device, steps)


def weights(crop: int, classes: int, hidden: int) -> UNETR:
    """The network of all ways, its weights drawn from one seed."""
    torch.manual_seed(0)
    sizes = {"feature_size": 16, "hidden_size": hidden, "mlp_dim": 4 * hidden, "num_heads": 12}
    return UNETR(in_channels=1, out_channels=classes, img_size=(crop,) * 3, **sizes)


def theirs(image: Tensor, label: Tensor, classes: int, hidden: int) -> Callable[[], float]:
    """A step of MONAI's parts, as its tutorials take it."""
    network = weights(image.shape[-1], classes, hidden).to(image.device)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)

    def step() -> float:
        loss = criterion(network(image), label.float())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.item())

    return step


def ours(image: Tensor, label: Tensor, settings: Finetune, classes: int) -> Callable[[], float]:
    """A step of our own engine, as `ssl_finetune.py` takes it."""
    compute, names = choose(settings), {k: str(k) for k in range(classes)}
    split = Split(Path("-"), "", {0: "CT"}, "segmentation", names, {})
    task = Segmentation(settings, split)
    reference = weights(image.shape[-1], classes, settings.network.hidden_size)  # type: ignore[union-attr]
    task.network.load_state_dict(reference.state_dict())
    training = training_of(settings, compute, split, Store([], []), task)
    step = Step(settings, compute, training, optimiser_of(settings, training.groups))
    batch = {"image": image, "label": label, "id": [""] * len(image), "data_hash": [""]}
    return lambda: float(step(1, batch)["loss"])


def settings_of(image: Tensor, hidden: int, device: str, float32: bool, threads: int) -> Finetune:
    """The settings of the recipe, as far as a step reads them."""
    network = {"name": "vit_base", "hidden_size": hidden, "mlp_size": 4 * hidden}
    return Finetune.model_validate({
        "split": "-", "out": "-", "steps": 100, "batch_size": len(image), "validate_every": 100, "lr": RATE,
        "weight_decay": DECAY, "crop_size": list(image.shape[2:]), "intensity": "percentile", "network": network,
        "device": device, "threads": threads, "precision": "float32" if float32 else "auto",
    })  # fmt: skip


if __name__ == "__main__":
    main()
