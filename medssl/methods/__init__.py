"""The self-supervised methods: one file each, one line each in METHODS.

`medssl.methods.method` says what a method is; METHODS says where each one is and which networks it works with.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from networks import ENCODERS

ANY = ("vit", "resnet", "swin")  # how the names of networks begin
METHODS = {
    "recon_contrast": ("medssl.methods.recon_contrast:ReconContrast", ANY),
    "masked": ("medssl.methods.masked:Masked", ANY),
    "pairs": ("medssl.methods.pairs:Pairs", ANY),
    "simclr": ("medssl.methods.simclr:SimCLR", ANY),
    "barlow": ("medssl.methods.barlow:Barlow", ANY),
    "swav": ("medssl.methods.swav:SwAV", ANY),
    "vicreg": ("medssl.methods.vicreg:VICReg", ANY),
    "mae": ("medssl.methods.mae:MAE", ("vit",)),
}


def method_class(name: str) -> Callable[..., Any]:
    """Import the class of the method called `name`."""
    module, attribute = METHODS[name][0].split(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


def networks_for(method: str) -> list[str]:
    """The names of the networks that a method works with."""
    return [name for name in ENCODERS if name.startswith(METHODS[method][1])]
