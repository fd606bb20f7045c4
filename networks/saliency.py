"""Where in an image a network's output comes from: Grad-CAM and occlusion, for any `Encoder` with a head on it.

Grad-CAM: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017
(https://arxiv.org/abs/1610.02391), equations 1 and 2, on the last feature map of a ResNet and on the tokens of a ViT's last
block. Occlusion: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014, by MONAI.

Both show where the output is sensitive, neither why (Adebayo et al., "Sanity Checks for Saliency Maps", 2018).
Axis letters: b batch (of 1 here), c channel, n tokens, e embedding, then space.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from monai.visualize import OcclusionSensitivity
from torch import Tensor, nn
from torch.nn import functional

from networks.features import Encoder

Score = Callable[[Tensor], Tensor]  # what is explained of outputs (b, outputs): (b,)


class Saliency(NamedTuple):
    """A map (*space) in 0..1, float32 on the CPU, and what its 1 stands for; all 0 where nothing speaks for the output."""

    map: Tensor
    peak: float


def evidence(k: int) -> Score:
    """Explain class k by its logit above the mean of all: a part that all share is lost in the softmax."""
    return lambda logits: logits[:, k] - logits.mean(1)


def probability(k: int) -> Score:
    """Explain class k by its softmax probability."""
    return lambda logits: logits.softmax(1)[:, k]


def grad_cam(network: nn.Module, encoder: Encoder, image: Tensor, score: Score) -> Saliency:
    """Weigh the last map's channels by the mean gradient of a score, and keep what raises it.

    `network` gives (b, outputs) from `encoder`; `image` is (c, *space). The map is linearly enlarged to the image; `peak`
    is what the strongest position adds to the score, to first order.

    MONAI's GradCAM needs gradients of all weights, clears those of a training, leaves its hooks behind, and knows no
    tokens. Here the map becomes a leaf on its way through the network, so that nothing before it is differentiated.
    """
    taps: list[Tensor] = []

    def tap(module: nn.Module, inputs: Any, found: Tensor) -> Tensor:
        taps.append(found.detach().requires_grad_())
        return taps[-1]

    with judging(network), torch.enable_grad():
        hook = encoder.layers()[-2].register_forward_hook(tap)
        try:
            outputs = network(image[None].to(device_of(network)))
        finally:
            hook.remove()
        (gradient,) = torch.autograd.grad(score(outputs.float())[0], taps)
    features, gradient = (as_map(array.float(), encoder, image.shape[1:]) for array in (taps[0].detach(), gradient))
    weights = gradient.flatten(2).mean(2)  # equation 1
    found = torch.einsum("be,be...->b...", weights, features).relu()  # equation 2
    mode = {2: "bilinear", 3: "trilinear"}[image.ndim - 1]
    return shares(functional.interpolate(found[None], image.shape[1:], mode=mode, align_corners=False)[0, 0])


def occlusion(
    network: nn.Module, image: Tensor, score: Score, patch: Sequence[int] | None = None, batch_size: int = 16
) -> Saliency:
    """Hide one patch after the other behind the image's mean and keep how far a score falls, at most `peak`.

    Patches overlap by half; by default they have an eighth of an image's side, a quarter of a volume's, which asks for
    about 225 and 343 forward passes.
    """
    parts = {2: 8, 3: 4}[image.ndim - 1]
    patch = patch or [max(1, side // parts) for side in image.shape[1:]]
    inputs = image[None].to(device_of(network))

    def scored(outputs: Tensor) -> Tensor:
        return score(outputs.float())[:, None]

    look = OcclusionSensitivity(network, patch, batch_size, mode="mean_img", overlap=0.5, activate=scored, verbose=False)
    with judging(network), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*non-tuple sequence.*")  # MONAI's
        hidden, _ = look(inputs)
        fall = scored(network(inputs)) - hidden[0].as_subclass(Tensor)
    return shares(fall[0].relu())


def as_map(found: Tensor, encoder: Encoder, space: Sequence[int]) -> Tensor:
    """Lay tokens (b, n, e) out as a map (b, e, *grid); a map stays as it is."""
    if found.ndim > 3:
        return found
    grid = [side // stride for side, stride in zip(space, encoder.stride, strict=True)]
    laid_out: Tensor = found.transpose(1, 2).unflatten(2, grid)
    return laid_out


def shares(found: Tensor) -> Saliency:
    """Divide by the highest value, so that 0 stays "no effect"."""
    found = found.float().cpu()
    peak = float(found.max())
    return Saliency(found / peak if peak > 0 else torch.zeros_like(found), max(peak, 0.0))


def device_of(network: nn.Module) -> torch.device:
    """Where the weights are."""
    device: torch.device = next(network.parameters()).device
    return device


@contextmanager
def judging(network: nn.Module) -> Iterator[None]:
    """Put every part in eval mode and afterwards each as it was: a frozen encoder's norms may differ from the rest."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
