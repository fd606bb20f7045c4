"""One safetensors file with the keys of MONAI's own class, where there is one, and the plan in its metadata."""

import json
from pathlib import Path

from safetensors.torch import save

from medssl.exports.constructors import Constructor, constructor_of, scales_images
from medssl.exports.source import Source
from networks.features import IMAGENET_MEAN, IMAGENET_STD
from networks.weight_files import PLAN

FILE = "model.safetensors"
NETWORK = "medssl_network"  # the key of the network's description in the metadata


def write(source: Source, folder: Path) -> list[str]:
    """Write model.safetensors; gives how to load it."""
    constructor = constructor_of(source)
    write_file(source, constructor, folder / FILE)
    return [*loading(constructor, FILE), *notes(source, constructor)]


def write_file(source: Source, constructor: Constructor, path: Path) -> None:
    """Write the weights, in the metadata the plan and what makes the network from them."""
    network = {"constructor": constructor.target, "arguments": constructor.arguments} | source.description
    metadata = {"format": "pt", PLAN: json.dumps(source.plan), NETWORK: json.dumps(network)}
    path.write_bytes(save(constructor.state, metadata))


def loading(constructor: Constructor, file: str) -> list[str]:
    """Two lines of Python that load the weights, and the imports that they need."""
    module, _, name = constructor.target.rpartition(".")
    call = str(constructor).removeprefix(f"{module}.")
    imports = [f"from {module} import {name}", "from safetensors.torch import load_file"]
    return [*imports, f"network = {call}.eval()", f'network.load_state_dict(load_file("{file}"), strict=True)']


def notes(source: Source, constructor: Constructor) -> list[str]:
    """What the code above does not say."""
    if constructor.ours:
        return ["# MONAI has no class of this network: networks/ of medssl makes it; the other formats bring that code along"]
    if scales_images(source.network):
        return [
            f"# images of 0..1 come in as (image - mean) / std, mean {IMAGENET_MEAN}, std {IMAGENET_STD}; grey: their means"
        ]
    return []
