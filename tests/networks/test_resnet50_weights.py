"""A file of the common ResNet50 weights against a ResNet50 written here from the paper, a function of the file's tensors."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from networks.heads import Classifier
from networks.resnet import resnet50
from networks.transfer import load_encoder, read_weights

BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}  # of each stage; its first block has a shortcut with weights
State = dict[str, Tensor]


def random_weights() -> State:
    """The 320 tensors of the common file, its names and shapes written down from their rule."""
    generator = torch.Generator().manual_seed(5)
    state: State = {}

    def convolution(name: str, inside: int, outside: int, side: int) -> None:
        scale = (2 / (inside * side**2)) ** 0.5
        state[f"{name}.weight"] = scale * torch.randn(outside, inside, side, side, generator=generator)

    def norm(name: str, width: int) -> None:
        for kind, low, high in (("weight", 0.5, 1), ("bias", -0.5, 0.5), ("running_mean", -0.5, 0.5), ("running_var", 0.5, 2)):
            state[f"{name}.{kind}"] = low + (high - low) * torch.rand(width, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    convolution("conv1", 3, 64, 7)
    norm("bn1", 64)
    inside = 64
    for stage, blocks in BLOCKS.items():
        planes = 32 * 2**stage
        for block in range(blocks):
            name, inner = f"layer{stage}.{block}", [(inside, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1)]
            for number, (before, after, side) in enumerate(inner, 1):
                convolution(f"{name}.conv{number}", before, after, side)
                norm(f"{name}.bn{number}", after)
            if block == 0:
                convolution(f"{name}.downsample.0", inside, 4 * planes, 1)
                norm(f"{name}.downsample.1", 4 * planes)
            inside = 4 * planes
    state["fc.weight"] = 0.02 * torch.randn(1000, 2048, generator=generator)
    state["fc.bias"] = torch.randn(1000, generator=generator)
    return state


def plain_resnet50(state: State, x: Tensor) -> Tensor:
    """The network as a function: (b, 3, h, w) -> logits (b, 1000). A stage's first 3 x 3 convolution has its stride."""

    def convolved(x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{convolution}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, variance, scale, shift = (
            state[f"{norm}.{kind}"].view(1, -1, 1, 1) for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = functional.max_pool2d(convolved(x, "conv1", "bn1", stride=2).relu(), 3, stride=2, padding=1)
    for stage, blocks in BLOCKS.items():
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = convolved(x, f"{name}.conv1", f"{name}.bn1").relu()
            inner = convolved(inner, f"{name}.conv2", f"{name}.bn2", stride).relu()
            inner = convolved(inner, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = convolved(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = (x + inner).relu()
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def test_a_file_of_the_common_layout_answers_as_it_should(tmp_path: Path) -> None:
    state = random_weights()
    assert len(state) == 320
    torch.save(state, tmp_path / "resnet50.pth")
    network = Classifier(resnet50(3, (96, 64)), 1000)
    report = load_encoder(network.encoder, *read_weights(tmp_path / "resnet50.pth"))
    assert (len(report.loaded), report.adapted, report.skipped) == (318, (), ("fc.bias", "fc.weight"))
    network.head.load_state_dict({name: state[f"fc.{name}"] for name in ("weight", "bias")})
    x = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        expected, found = plain_resnet50(state, x), network.eval()(x)
    assert (expected[0] - expected[1]).abs().mean() > 0.01  # the image counts, in spite of what stands between
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
