"""`medssl export`: a trained run in the formats that other programs read, one file and one line in FORMATS each.

A format is a function (Source, folder) -> lines for the user: it writes its files into an empty folder, and raises
InputError for a run that the format can't hold.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

FORMATS = {
    "safetensors": "medssl.exports.weights:write",
    "monai-bundle": "medssl.exports.bundle:write",
    "huggingface": "medssl.exports.hub:write",
    "onnx": "medssl.exports.onnx_file:write",
}


def writer(name: str) -> Callable[..., list[str]]:
    """Import the function that writes the format called `name`."""
    module, function = FORMATS[name].split(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
