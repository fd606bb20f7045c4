"""ONNX by torch's exporter, run by onnxruntime and compared with PyTorch before it is written.

Of a whole network the output is that of the network; of an encoder the last feature map and its mean, the pooled vector.
The number of images is free, their size is that of the plan. https://onnx.ai
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor, nn

from medssl.exports.constructors import CLOSE, difference, examples
from medssl.exports.source import ENCODER_TASK, Source
from medssl.problems import InputError, Problem, RunError
from networks.block import Block
from networks.features import Encoder

FILE = "model.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
BATCHES = (1, 2, 3)  # that are compared; the example has 2, as torch takes 1 for a constant


def write(source: Source, folder: Path) -> list[str]:
    """Write model.onnx; InputError where the packages for it are missing, RunError where it answers otherwise."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        found = f"{', '.join(missing)} not installed"
        raise InputError([Problem("--to onnx", "packages", found, "them: pip install -e '.[onnx]'")])
    names = ["pooled", "map"] if source.task == ENCODER_TASK else ["output"]
    network = plain(source.network)
    with quiet():
        program = torch.onnx.export(
            network, (examples(source, 2),), dynamo=True, opset_version=OPSET, input_names=["image"], output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props.update({key: json.dumps(value) for key, value in source.description.items()})
    program.save(str(folder / FILE), external_data=too_large(network))
    worst = largest_difference(source, network, folder / FILE)
    if not worst <= CLOSE:
        raise RunError(f"onnxruntime and PyTorch differ by {worst:.1e} of the largest output, more than {CLOSE:.0e}")
    shape = "x".join(map(str, ["n", source.split.channels, *source.size]))
    return [
        "import onnxruntime",
        f'session = onnxruntime.InferenceSession("{FILE}")',
        f'output = session.run(None, {{"image": images}})  # float32 {shape}',
        f"# opset {OPSET}; differs from PyTorch by at most {worst:.1e} of the largest output",
    ]


class Pooled(nn.Module):
    """An encoder as a program wants it: images (b, c, *space) -> the pooled vector (b, width), the last map (b, e, *grid)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder.features(image)
        return features.pooled, features.maps[-1]


def plain(network: nn.Module) -> nn.Module:
    """A copy that the exporter understands: MONAI's blocks computed as MONAI computes them, of an encoder its features."""
    copied = copy.deepcopy(network).eval()
    for part in copied.modules():
        if isinstance(part, Block):
            part.__class__ = TransformerBlock
    return Pooled(copied) if isinstance(copied, Encoder) else copied


def too_large(network: nn.Module) -> bool:
    """Whether the weights are more than one file of the format may hold, and lie beside it."""
    nbytes: int = sum(value.nbytes for value in network.state_dict().values())
    return nbytes > 2**31 - 2**24


def largest_difference(source: Source, network: nn.Module, path: Path) -> float:
    """How far apart both are on random images, relative to the largest output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in BATCHES:
        images = examples(source, count)
        with torch.inference_mode():
            expected: Any = network(images)
        found = session.run(None, {"image": images.numpy()})
        pairs = zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True)
        worst = max([worst, *(difference(torch.from_numpy(a), b) for a, b in pairs)])
    return worst


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter tells of its passes, and of a torchvision that it does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
