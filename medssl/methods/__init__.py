"""The self-supervised methods: one file each, one line each in METHODS.

A method is a module built as `Method(encoder, settings)` around the encoder that is kept, with

- `views(settings)`: the MONAI transform that turns {"image"} into {"image", "view_0", ...};
- `forward(batch)`: a dictionary of scalar tensors, of which `loss` is minimised;
- `validate(batch)`: a dictionary of scalars, of which `VALIDATION`, lower is better, selects the best checkpoint;
- `reconstruct(batch)`: the restored views, for the figure;
- `chance(batch_size)`: parts of the loss and the value they have when nothing is learned.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

METHODS = {"recon_contrast": "medssl.methods.recon_contrast:ReconContrast"}


def method_class(name: str) -> Callable[..., Any]:
    """Import the class of the method called `name`."""
    module, attribute = METHODS[name].split(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found
