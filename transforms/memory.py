"""Memory that is used again once nobody holds it.

A view of a 96^3 crop is 3.5 MB, and the pages under it come fresh from the system and go back to it again and again,
which costs as much as the corruption, or several times that on a virtual machine.
"""

import weakref
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Recycled:
    """Gives tensors on memory of tensors that no longer exist; keeps at most ``limit`` blocks for that.

    A tensor made from an array keeps that array object alive for as long as any tensor shares its memory. So each tensor
    gets an array object of its own over a block, and the end of that object frees the block for the next.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self.free: list[NDArray[np.uint8]] = []

    def empty_like(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised contiguous tensor of the shape, device and type of ``x``, or of another type."""
        dtype = dtype or x.dtype
        if x.device.type != "cpu":  # CUDA's allocator recycles by itself
            return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
        size = x.numel() * dtype.itemsize
        block = self.free.pop() if self.free else np.empty(size, np.uint8)
        if block.nbytes != size:
            self.free.clear()
            block = np.empty(size, np.uint8)
        lease = block.view()
        weakref.finalize(lease, self._take_back, block).atexit = False
        return torch.from_numpy(lease).view(dtype).view(x.shape)

    def _take_back(self, block: NDArray[np.uint8]) -> None:
        if len(self.free) < self.limit:
            self.free.append(block)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self.limit,)  # a copy has memory of its own
