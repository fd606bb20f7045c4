"""Changes of intensity: each against its formula, the blur against a convolution, and the law of the draws."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from transforms.jitter import LUMA, Jitter, JitterLaw, blur, channel_mean, gaussian_noise, jitter, saturate
from transforms.seeding import random_state

SHAPES = [(2, 18, 23), (2, 9, 12, 10)]


def image(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_blur(x: np.ndarray, sigma: float) -> np.ndarray:
    """One sum over the whole kernel for each voxel, of voxels whose places are moved into the image."""
    radius = math.ceil(3 * sigma)
    steps = np.arange(-radius, radius + 1)
    bell = np.exp(-0.5 * (steps / sigma) ** 2)
    bell /= bell.sum()
    kernel = bell
    for _ in x.shape[2:]:
        kernel = np.multiply.outer(kernel, bell)
    out = np.zeros_like(x)
    for place in np.ndindex(*x.shape[1:]):
        near = [np.clip(k + steps, 0, n - 1) for k, n in zip(place, x.shape[1:], strict=True)]
        for channel in range(len(x)):
            out[(channel, *place)] = (x[channel][np.ix_(*near)] * kernel).sum()
    return out


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.3])
@pytest.mark.parametrize("shape", [(2, 9, 12), (1, 6, 7, 5)])  # 2.3: a kernel longer than the image
def test_blur_equals_the_convolution(shape: tuple[int, ...], sigma: float) -> None:
    x = image(shape)
    kept = x.clone()
    torch.testing.assert_close(blur(x, sigma), torch.from_numpy(slow_blur(x.numpy(), sigma)), rtol=0, atol=1e-12)
    assert torch.equal(x, kept)
    torch.testing.assert_close(blur(torch.full(shape, 0.7), sigma), torch.full(shape, 0.7))


def test_blur_of_equal_slices_is_that_of_a_slice() -> None:
    x = image((2, 18, 23))
    torch.testing.assert_close(blur(x[:, None].expand(-1, 5, -1, -1), 1.2), blur(x, 1.2)[:, None].expand(-1, 5, -1, -1))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_change_is_its_formula_and_all_come_in_one_order(shape: tuple[int, ...]) -> None:
    x = image(shape) * 0.6 + 0.2
    kept = x.clone()
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))
    torch.testing.assert_close(jitter(x, Jitter(gamma=1.7)), x**1.7)
    torch.testing.assert_close(jitter(x, Jitter(contrast=0.6)), mean + 0.6 * (x - mean))
    torch.testing.assert_close(jitter(x, Jitter(brightness=1.2)), x * 1.2)
    torch.testing.assert_close(jitter(x, Jitter(blur_sigma=0.9)), blur(x, 0.9))
    assert torch.equal(jitter(x, Jitter()), x)
    y = blur(x, 0.8) ** 1.4
    mean = y.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))
    y = (mean + 1.3 * (y - mean)) * 1.1 + 0.02 * gaussian_noise(x, 5)
    together = jitter(x, Jitter(1.4, 1.3, 1.1, 0.02, 0.8, 1.0, 5))
    torch.testing.assert_close(together, y.clamp(0, 1))
    assert torch.equal(x, kept)
    strong = jitter(x, Jitter(contrast=2.0, brightness=1.8))
    assert (strong.min(), strong.max()) == (0, 1)
    assert jitter(x - 0.3, Jitter(gamma=0.5)).isfinite().all()  # below 0 a power would not be a number


def test_noise_has_its_deviation_and_its_seed() -> None:
    x = torch.full((1, 150, 150), 0.5)
    noise = (jitter(x, Jitter(noise_std=0.05, seed=1)) - x).flatten().double()
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(noise.mean())) < 4 * 0.05 / 150
    assert float((noise**4).mean() / noise.var() ** 2) == pytest.approx(3, abs=0.15)  # the fourth moment of a Gaussian
    assert torch.equal(gaussian_noise(x, 1), gaussian_noise(x, 1))
    assert not torch.equal(gaussian_noise(x, 1), gaussian_noise(x, 2))


def test_saturation_keeps_the_brightness_and_zero_is_grey() -> None:
    x = image((3, 6, 7))
    luma = (x * torch.tensor(LUMA, dtype=x.dtype).view(3, 1, 1)).sum(0)
    for factor in (0.0, 0.5, 1.3):
        torch.testing.assert_close(saturate(x, factor), luma + factor * (x - luma))
    torch.testing.assert_close(jitter(x, Jitter(saturation=0.0)), luma.expand(3, -1, -1))
    with pytest.raises(ValueError, match="colour: found 2 channels"):
        jitter(x[:2], Jitter(saturation=0.5))


def test_means_and_whole_changes_do_not_depend_on_the_threads() -> None:
    x = image((1, 70, 71, 69)).float()
    change, threads, found = Jitter(1.3, 1.2, 0.9, 0.02, 1.0, 1.0, 3), torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append((channel_mean(x), jitter(x, change)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_draws_keep_to_their_ranges_and_probabilities() -> None:
    law = JitterLaw(gamma_prob=0.3, gamma=(0.5, 2), noise_prob=0.4, blur_prob=0.6, colour=True, grey_prob=0.1, contrast=0.2)
    rng = random_state(0)
    drawn = [law.draw(rng) for _ in range(3000)]
    gamma, contrast, brightness, noise, sigma, saturation, _ = np.array(drawn).T
    for values, neutral, share, low, high in [
        (gamma, 1, 0.3, 0.5, 2.0),
        (contrast, 1, 0.8, 0.8, 1.2),
        (brightness, 1, 0.8, 0.6, 1.4),
        (noise, 0, 0.4, 0.0, 0.05),
        (sigma, 0, 0.6, 0.1, 2.0),
    ]:
        changed = values[values != neutral]
        assert abs(len(changed) / len(values) - share) < 0.04
        assert low <= changed.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < changed.max() <= high
    assert abs(np.log(gamma).mean()) < 0.02  # 1/2 as likely as 2
    assert abs((saturation == 0).mean() - 0.1) < 0.02
    grey = JitterLaw(gamma_prob=0.3).draw(random_state(9))
    assert grey.saturation == 1
    assert grey[:5] == JitterLaw(gamma_prob=0.3, colour=True).draw(random_state(9))[:5]
    without = JitterLaw(gamma_prob=0.3, contrast_prob=0).draw(random_state(9))
    assert without == grey._replace(contrast=1.0)  # what one change is does not depend on another


def test_wrong_ranges_are_refused() -> None:
    for name, wrong in [("gamma_prob", 1.1), ("contrast", -0.1), ("noise_std", -1), ("gamma", (0, 1)), ("blur_sigma", (2, 1))]:
        with pytest.raises(ValueError, match=f"{name}: expected"):
            JitterLaw(**{name: wrong})  # type: ignore[arg-type]
