"""Resized crops and changes of intensity of whole batches: `resized_crop` and `jitter` for all views at once.

Cutting a box out, resizing, mirroring and blurring are linear along each axis, so together they are one matrix for each
axis and view, and a view is the crop multiplied by two or three matrices. It equals what the functions for a single crop
make, up to rounding. Axes: v view, b crop, c channel, then space.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from transforms.in_batches import beside, fill
from transforms.jitter import LUMA, Jitter, JitterLaw, check_colour

CHANGES = Jitter._fields[:-1]  # all but the seed


def changes_of(changes: Sequence[Jitter]) -> Tensor:
    """What was drawn for several views as a tensor (v, CHANGES)."""
    return torch.tensor([change[:-1] for change in changes], dtype=torch.float32)


def resized(x: Tensor, boxes: Tensor, flips: Tensor, size: Sequence[int], sigma: Tensor, largest_sigma: float) -> Tensor:
    """Cut ``boxes`` (v, b, 2, axis) out of ``x`` (b, c, *spatial), resize, mirror and blur them: (v, b, c, *size).

    ``flips`` (v, b, axis) says which axes are mirrored; ``sigma`` (v, b) is the blur's deviation in voxels, 0 for none, up
    to ``largest_sigma``.
    """
    out = x.expand(len(boxes), *x.shape)
    for axis in reversed(range(len(size))):
        matrix = resizing(boxes[..., axis], flips[..., axis], x.shape[2 + axis], size[axis])
        if largest_sigma > 0:
            matrix = blurring(sigma, size[axis], largest_sigma) @ matrix
        # from (..., h, w, d) to (..., d, h, w): the last axis is summed over and comes out first
        rest = [*out.shape[3:-1]]
        out = (matrix[:, :, None] @ out.flatten(3, -2).mT).unflatten(-1, rest)
    return out


def resizing(ends: Tensor, flip: Tensor, length: int, size: int) -> Tensor:
    """The matrices (v, b, size, length) that resize a part of an axis, first to last but one of ``ends`` (v, b, 2), linearly.

    Mirrored where ``flip`` (v, b) is True. As in ``resized_crop.resize``: where the axis shrinks, the triangle is as much
    wider as the new cells are.
    """
    start, stop = ends[..., None, None].unbind(2)  # (v, b, 1, 1)
    cells = torch.arange(length, device=ends.device) - start
    zoom = (stop - start) / size
    centres = zoom * (torch.arange(size, device=ends.device)[:, None] + 0.5)
    weights = (1 - (cells + 0.5 - centres).abs() / zoom.clamp(min=1)).clamp(min=0)
    weights = weights * ((cells >= 0) & (cells < stop - start))
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.where(beside(flip, weights), weights.flip(-2), weights)


def blurring(sigma: Tensor, size: int, largest: float) -> Tensor:
    """The matrices (v, b, size, size) of ``jitter.blur`` along an axis, for ``sigma`` (v, b) in 0..largest."""
    sigma = sigma[..., None, None].clamp(min=1e-3)  # so narrow that only the middle is left
    reach = math.ceil(3 * largest)
    steps = torch.arange(-reach, size + reach, device=sigma.device) - torch.arange(size, device=sigma.device)[:, None]
    bell = torch.exp(-0.5 * (steps / sigma) ** 2) * (steps.abs() <= (3 * sigma).ceil())
    before, inside, after = (bell / bell.sum(-1, keepdim=True)).split([reach, size, reach], -1)
    matrix: Tensor = inside.clone()
    matrix[..., 0] += before.sum(-1)  # the border goes on as its outermost voxel
    matrix[..., -1] += after.sum(-1)
    return matrix


def jitter_batch(x: Tensor, changes: Tensor, law: JitterLaw, seeds: Sequence[int]) -> Tensor:
    """Change the intensities of ``x`` (v, b, c, *space) by ``changes`` (v, b, CHANGES), in place, as ``jitter`` does.

    The blur is left to ``resized``; what ``law`` never changes costs nothing.
    """
    gamma, contrast, brightness, noise_std, _, saturation = (beside(change, x) for change in changes.unbind(-1))
    if law.gamma_prob > 0:
        x.clamp_(min=0).pow_(gamma)
    if law.contrast_prob > 0:
        mean = x.mean(dim=tuple(range(3, x.ndim)), keepdim=True)
        torch.addcmul((1 - contrast) * brightness * mean, x, contrast * brightness, out=x)
    elif law.brightness_prob > 0:
        x.mul_(brightness)
    if law.colour:
        check_colour(x.shape[2])
        grey = (x * beside(x.new_tensor(LUMA), x[0, 0])).sum(2, keepdim=True)
        torch.lerp(grey, x, saturation, out=x)
    if law.noise_prob > 0:
        x.addcmul_(fill(torch.empty_like(x), seeds, Tensor.normal_), noise_std)
    return x.clamp_(0, 1)
