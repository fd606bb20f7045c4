"""Windows along a sweep against MONAI's, which holds the scores of the whole image."""

from collections.abc import Sequence

import pytest
import torch
from monai.data.utils import dense_patch_slices
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from medssl import windows
from medssl.problems import RunError
from medssl.windows import Slab, label_map, starts

CASES = [  # size, window, overlap, windows a forward
    ((37, 23, 29), (16, 8, 12), 0.5, 3),
    ((20, 41, 11), (12, 10, 16), 0.25, 4),  # smaller than the window on an axis, and swept along the second
    ((9, 7, 5), (12, 8, 6), 0.5, 2),  # smaller on all: one window
    ((16, 16, 40), (16, 16, 16), 0.0, 5),
    ((33, 17), (8, 12), 0.75, 5),  # the slab's new place overlaps its old one
    ((24, 50), (24, 16), 0.25, 1),
    ((7, 31), (10, 9), 0.9, 4),
]


class Places(nn.Module):
    """Class scores that depend on the place in the window, so that any wrong place or weight of a window shows."""

    def __init__(self, channels: int, classes: int, window: Sequence[int]) -> None:
        super().__init__()
        convolution = nn.Conv3d if len(window) == 3 else nn.Conv2d
        self.convolution = convolution(channels, classes, 3, padding=1)
        self.places = nn.Parameter(torch.randn(classes, *window))
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return 3 * self.convolution(x) + self.places


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize(("size", "window", "overlap", "batch"), CASES)
def test_labels_are_those_of_monai(
    size: tuple[int, ...], window: tuple[int, ...], overlap: float, batch: int, blend: str
) -> None:
    torch.manual_seed(0)
    network, image = Places(2, 5, window), torch.randn(2, *size)
    with torch.no_grad():
        scores = sliding_window_inference(image[None], window, batch, network, overlap, blend)[0]
    monai_batches = network.batches.copy()
    network.batches.clear()
    seen: list[tuple[int, int]] = []
    found = label_map(network, image, window, overlap, batch, blend, lambda *done: seen.append(done))
    assert (found.dtype, found.shape) == (torch.uint8, size)
    best = scores.topk(2, 0)
    clear = best.values[0] - best.values[1] > 1e-4
    assert torch.equal(found.long()[clear], best.indices[0][clear])
    assert clear.float().mean() > 0.998
    assert network.batches == monai_batches  # as many windows, and no forward smaller than need be
    assert seen[-1] == (sum(monai_batches), sum(monai_batches))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.6, 0.9])
def test_windows_lie_where_monai_puts_them(overlap: float) -> None:
    for window in (8, 11):
        for size in range(window, 60):
            step = window if size == window else max(int(window * (1 - overlap)), 1)
            expected = dense_patch_slices((size,), (window,), (step,))
            assert starts(size, window, overlap) == [start.start for (start,) in expected]


def test_scores_of_a_slab_alone_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    slabs: list[Slab] = []

    def remembered(*words: object) -> Slab:
        slabs.append(Slab(*words))  # type: ignore[arg-type]
        return slabs[-1]

    monkeypatch.setattr(windows, "Slab", remembered)
    label_map(Places(1, 5, (8, 8, 8)), torch.randn(1, 20, 64, 20), (8, 8, 8))
    assert slabs[0].scores.shape == (5, 20, 8, 20)


def test_more_classes_than_a_byte_tells_apart() -> None:
    image = torch.arange(300.0).reshape(1, 20, 15)

    def forward(crops: Tensor) -> Tensor:
        return -(crops - torch.arange(300.0)[:, None, None]).abs()

    assert torch.equal(label_map(forward, image, (8, 8)).int(), image[0].int())


def test_large_windows_go_one_by_one_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST_VOXELS_ON_CPU", 2 * 8 * 8 + 1)
    network = Places(1, 3, (8, 8))
    label_map(network, torch.randn(1, 20, 20), (8, 8), batch_size=4)
    assert network.batches == [2] * 4 + [1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    def forward(crops: Tensor) -> Tensor:
        scores = torch.zeros(len(crops), 3, *crops.shape[2:])
        scores[:, 1, 2, 3] = value
        return scores

    with pytest.raises(RunError, match="finite"):
        label_map(forward, torch.zeros(1, 20, 20), (8, 8))


def test_labels_can_be_written_to_and_gradients_are_left_out() -> None:
    network = Places(1, 3, (8, 8))
    inferring: list[bool] = []
    network.register_forward_hook(lambda *_: inferring.append(torch.is_inference_mode_enabled()))
    labels = label_map(network, torch.randn(1, 20, 20), (8, 8))
    labels[0] = 2
    assert all(inferring)
    assert not labels.is_inference()
