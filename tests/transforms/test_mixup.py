"""Mixup against a loop over images, and its draws."""

import pytest
import torch
from torch.nn import functional

from transforms.mixup import Mix, draw_mix


def test_images_and_losses_are_mixed_as_in_a_loop() -> None:
    torch.manual_seed(0)
    mix = draw_mix(0.4, 6)
    images, logits, classes = torch.rand(6, 2, 5, 4), torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    wanted, losses = torch.empty_like(images), []
    for k, partner in enumerate(mix.partner.tolist()):
        wanted[k] = mix.share * images[k] + (1 - mix.share) * images[partner]
        own, other = (functional.cross_entropy(logits[k : k + 1], classes[j : j + 1]) for j in (k, partner))
        losses.append(mix.share * own + (1 - mix.share) * other)
    torch.testing.assert_close(mix(images), wanted)
    found = mix.loss(lambda c: functional.cross_entropy(logits, c, reduction="none"), classes)
    torch.testing.assert_close(found, torch.stack(losses))
    # where targets are numbers, the squared distance to the mixed number is what is wanted, not the mixed distance
    torch.testing.assert_close(mix(classes.float())[1], mix.share * 1 + (1 - mix.share) * classes[mix.partner[1]].float())


def test_draws_come_from_torchs_random_state_and_have_the_moments_of_the_beta_distribution() -> None:
    torch.manual_seed(3)
    first = draw_mix(0.4, 5)
    torch.manual_seed(3)
    again = draw_mix(0.4, 5)
    assert first.share == again.share
    assert torch.equal(first.partner, again.partner)
    assert sorted(first.partner.tolist()) == list(range(5))
    shares = torch.tensor([draw_mix(0.4, 1).share for _ in range(4000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)  # of Beta(a, a)


def test_without_mixing_nothing_changes_and_nothing_is_drawn() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    mix = draw_mix(0.0, 4)
    images = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    assert mix(images) is images
    assert mix.loss(lambda c: c * 2, torch.arange(4)).tolist() == [0, 2, 4, 6]
    assert torch.equal(torch.get_rng_state(), before)
    assert Mix(0.0, torch.tensor([1, 0]))(torch.tensor([1.0, 2.0])).tolist() == [2.0, 1.0]
