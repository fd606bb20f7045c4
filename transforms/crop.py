"""PLACEHOLDER by the lead; the transforms helper replaces this file. Wanted interface below."""
import numpy as np
import torch


def pad_to(x, size):
    pads = []
    for have, want in zip(reversed(x.shape[1:]), reversed(list(size))):
        gap = max(want - have, 0)
        pads += [gap // 2, gap - gap // 2]
    return torch.nn.functional.pad(x, pads)


def foreground_start(positions, shape, size, random):
    centre = positions[int(random.integers(len(positions)))]
    start = centre - np.asarray(size) // 2
    return np.clip(start, 0, np.maximum(np.asarray(shape) - size, 0))
