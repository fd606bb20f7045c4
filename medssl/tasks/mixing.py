"""Mixup over all ranks: the partner of an image may be on another one, so that many ranks mix as one process does."""

from medssl.ranks import gathered, own, world_size
from transforms.mixup import Mix, draw_mix


def mix_of(alpha: float, count: int) -> Mix:
    """Draw how `count` images of this rank are mixed, one share for those of all ranks; alpha 0: no mixing."""
    mix = draw_mix(alpha, world_size() * count)
    return mix._replace(partner=own(mix.partner), all_of=gathered)
