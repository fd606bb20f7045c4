"""Random changes of intensity for grey medical images in 0..1, and of colour for natural ones.

SimCLR's distortions (Chen et al. 2020, arXiv:2002.05709) without those that mean nothing on a grey image (hue, grey,
solarise), with gamma and noise in their place: scanners differ in both. They always come in one order, that in which
an image is made: blur, gamma, contrast, brightness, colour, noise; then the result is clipped to 0..1. Axes: c, then
space.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transforms.corrupt import draw_seed
from transforms.memory import Recycled

Span = Sequence[float]  # the two ends of a range
LUMA = (0.299, 0.587, 0.114)  # how bright red, green and blue look: ITU-R BT.601
MEMORY = Recycled()  # fresh pages under every step would cost more than the step


class Jitter(NamedTuple):
    """What was drawn for one view; the defaults change nothing."""

    gamma: float = 1.0  # exponent
    contrast: float = 1.0  # factor of the distance from the channel's mean
    brightness: float = 1.0  # factor
    noise_std: float = 0.0
    blur_sigma: float = 0.0  # voxels
    saturation: float = 1.0  # factor of the distance from grey; 0: grey
    seed: int = 0  # of the noise


@dataclass(frozen=True)
class JitterLaw:
    """How changes are drawn: each with a probability of its own.

    ``gamma`` is the range of the exponent, uniform in its logarithm, ``blur_sigma`` that of the deviation in voxels.
    ``contrast``, ``brightness`` and ``saturation`` are the largest relative changes: 0.4 draws factors of 0.6..1.4.
    ``noise_std`` is the largest deviation. Saturation and ``grey_prob`` count with ``colour`` alone. Raises ValueError
    for a value out of range.
    """

    gamma_prob: float = 0.8
    gamma: Span = (0.6, 1.6)
    contrast_prob: float = 0.8
    contrast: float = 0.4
    brightness_prob: float = 0.8
    brightness: float = 0.4
    noise_prob: float = 0.2
    noise_std: float = 0.05
    blur_prob: float = 0.5
    blur_sigma: Span = (0.1, 2.0)
    colour: bool = False
    saturation_prob: float = 0.8
    saturation: float = 0.4
    grey_prob: float = 0.2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_prob") and not 0 <= value <= 1:
                raise ValueError(f"{name}: expected 0..1, found {value}")
        for name in ("contrast", "brightness", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0..1, found {getattr(self, name)}")
        if not 0 <= self.noise_std < math.inf:
            raise ValueError(f"noise_std: expected 0 or more, found {self.noise_std}")
        for name, ends in (("gamma", self.gamma), ("blur_sigma", self.blur_sigma)):
            if len(ends) != 2 or not 0 < ends[0] <= ends[1] < math.inf:
                raise ValueError(f"{name}: expected 0 < low <= high, found {ends}")

    def draw(self, rng: np.random.RandomState) -> Jitter:
        """Draw the changes of one view; what one of them is never depends on whether another happens."""
        probs = (self.gamma_prob, self.contrast_prob, self.brightness_prob, self.noise_prob, self.blur_prob)
        happens = [toss < prob for toss, prob in zip(rng.random_sample(5).tolist(), probs, strict=True)]
        gamma, contrast, brightness, noise, blurring = rng.random_sample(5).tolist()
        seed = draw_seed(rng)
        return Jitter(
            gamma=self.gamma[0] ** (1 - gamma) * self.gamma[1] ** gamma if happens[0] else 1.0,
            contrast=_factor(self.contrast, contrast) if happens[1] else 1.0,
            brightness=_factor(self.brightness, brightness) if happens[2] else 1.0,
            noise_std=self.noise_std * noise if happens[3] else 0.0,
            blur_sigma=self.blur_sigma[0] + (self.blur_sigma[1] - self.blur_sigma[0]) * blurring if happens[4] else 0.0,
            saturation=self._saturation(*rng.random_sample(3).tolist()) if self.colour else 1.0,
            seed=seed,
        )

    def _saturation(self, for_grey: float, for_change: float, place: float) -> float:
        if for_grey < self.grey_prob:
            return 0.0
        return _factor(self.saturation, place) if for_change < self.saturation_prob else 1.0


def jitter(x: Tensor, change: Jitter, *, owned: bool = False, memory: Recycled = MEMORY) -> Tensor:
    """A changed copy of ``x`` (c, *spatial), float32 or float64 in 0..1; ``owned`` allows to write into ``x``.

    The mean that contrast keeps is that of each channel. Raises ValueError if saturation changes and c is not 3.
    """
    x = blur(x, change.blur_sigma, memory) if change.blur_sigma > 0 else x if owned else x.clone()
    if change.gamma != 1:
        x.clamp_(min=0).log_().mul_(change.gamma).exp_()  # pow_ is slower, and its last bits depend on the number of threads
    if change.contrast != 1:
        mean = channel_mean(x)  # (c, 1, ...)
        torch.add((1 - change.contrast) * change.brightness * mean, x, alpha=change.contrast * change.brightness, out=x)
    elif change.brightness != 1:
        x.mul_(change.brightness)
    if change.saturation != 1:
        x = saturate(x, change.saturation)
    if change.noise_std > 0:
        x.add_(gaussian_noise(x, change.seed, memory), alpha=change.noise_std)
    return x.clamp_(0, 1)


def blur(x: Tensor, sigma: float, memory: Recycled = MEMORY) -> Tensor:
    """``x`` (c, *spatial) convolved with a Gaussian of ``sigma`` voxels: a new tensor.

    The kernel ends at three deviations and sums to 1; the border is continued by its outermost voxels, since zeros
    would darken it. It is a sum of shifted copies along one axis after the other: for one channel a quarter of the time
    of a convolution, and as exact.
    """
    bell = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(math.ceil(3 * sigma) + 1)]
    first, *others = (weight / (2 * sum(bell) - bell[0]) for weight in bell)
    y = x.contiguous()
    for axis in range(1, x.ndim):
        rows = y.view(math.prod(y.shape[:axis]), y.shape[axis], -1)
        top, bottom = rows[:, :1], rows[:, -1:]
        y = memory.empty_like(y)
        out = torch.mul(rows, first, out=y.view(rows.shape))
        for step, weight in enumerate(others, start=1):
            out[:, step:].add_(rows[:, :-step], alpha=weight)
            out[:, :step].add_(top, alpha=weight)
            out[:, :-step].add_(rows[:, step:], alpha=weight)
            out[:, -step:].add_(bottom, alpha=weight)
    return y


def saturate(x: Tensor, factor: float) -> Tensor:
    """Move the colours of ``x`` (3, *spatial) to (below 1) or away from (above 1) the grey of equal brightness."""
    check_colour(len(x))
    grey = torch.tensordot(x.new_tensor(LUMA), x, dims=1)
    return torch.lerp(grey, x, factor)


def check_colour(channels: int) -> None:
    """Raise ValueError unless there are three channels."""
    if channels != 3:
        raise ValueError(f"colour: found {channels} channels, expected 3: red, green, blue")


def gaussian_noise(x: Tensor, seed: int, memory: Recycled = MEMORY) -> Tensor:
    """Noise of the shape, type and device of ``x``, of mean 0 and deviation 1."""
    return memory.empty_like(x).normal_(generator=torch.Generator(x.device).manual_seed(seed))


def channel_mean(x: Tensor) -> Tensor:
    """The mean of every channel of ``x``, as (c, 1, ...): row by row, so that it is the same for any number of threads."""
    rows = x.mean(dim=-1)
    return rows.flatten(1).mean(dim=1).view(-1, *[1] * (x.ndim - 1))


def _factor(largest: float, place: float) -> float:
    return 1 + largest * (2 * place - 1)
