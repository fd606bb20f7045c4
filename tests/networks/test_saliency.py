"""Saliency against slow references, MONAI, and networks and phantoms whose answer is known."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from monai.visualize import GradCAM
from torch import Tensor, nn
from torch.nn import functional

from networks.features import Encoder, Features
from networks.heads import Classifier
from networks.resnet import resnet18
from networks.saliency import evidence, grad_cam, occlusion, probability
from networks.vit import ViT

SIDE = {2: 32, 3: 16}
EVERY = list(product(["resnet", "vit"], [2, 3]))


def classifier(name: str, dims: int, classes: int = 3, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    size = [SIDE[dims]] * dims
    encoder: Encoder
    if name == "vit":
        encoder = ViT(1, size, [SIDE[dims] // 4] * dims, hidden_size=24, mlp_size=48, layers=2, heads=3)
    else:
        encoder = resnet18(1, size, width=8, stem_stride=1, stem_pool=dims == 2)
    return Classifier(encoder, classes)


def number(outputs: Tensor) -> Tensor:
    return outputs[:, 0]


def image(dims: int) -> Tensor:
    return torch.rand(1, *[SIDE[dims]] * dims, generator=torch.Generator().manual_seed(1))


def slow_cam(network: Classifier, x: Tensor, output: int) -> Tensor:
    """Grad-CAM position by position; the gradient by moving each value of the last map a little, in float64."""
    encoder = network.encoder
    with torch.no_grad():
        tokens = isinstance(encoder, ViT)  # those of the last block, before they are normalised
        last = (encoder.to_map(encoder(x[None])[1][-1]) if tokens else encoder.features(x[None]).maps[-1])[0]  # (e, *grid)

        def score(array: Tensor) -> float:
            places = array.flatten(1).T
            logits = network.head((encoder.norm(places) if tokens else places).mean(0))
            return float(logits[output] - logits.mean())

        weights = []
        for channel in last:
            total = 0.0
            for place in product(*map(range, channel.shape)):
                old, step = channel[place].clone(), 1e-5
                channel[place] = old + step
                higher = score(last)
                channel[place] = old - step
                total += (higher - score(last)) / (2 * step)
                channel[place] = old
            weights.append(total / channel.numel())
        cam = sum(w * channel for w, channel in zip(weights, last, strict=True)).clamp(min=0)
        mode = {2: "bilinear", 3: "trilinear"}[x.ndim - 1]
        cam = functional.interpolate(cam[None, None], x.shape[1:], mode=mode, align_corners=False)[0, 0]
        return cam / cam.max()


@pytest.mark.parametrize(("name", "dims"), EVERY)
def test_grad_cam_equals_a_slow_one(name: str, dims: int) -> None:
    network, x = classifier(name, dims).double().eval(), image(dims).double()
    output = int(network(x[None]).argmax())
    found = grad_cam(network, network.encoder, x, evidence(output))
    assert (found.map.dtype, found.map.shape) == (torch.float32, x.shape[1:])
    assert found.peak > 0
    assert torch.allclose(found.map.double(), slow_cam(network, x, output), atol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_grad_cam_of_a_resnet_equals_that_of_monai(dims: int) -> None:
    network, x = classifier("resnet", dims).eval(), image(dims)
    ours = [grad_cam(network, network.encoder, x, evidence(k)) for k in range(3)]
    with torch.no_grad():  # the same probabilities, without what all logits share
        network.head.weight -= network.head.weight.mean(0)
    theirs = GradCAM(network, "encoder.layer4", postprocessing=lambda cam: cam)
    for output, found in enumerate(ours):
        assert torch.allclose(found.map * found.peak, theirs(x[None], class_idx=output)[0, 0].detach(), atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_occlusion_equals_a_slow_one(dims: int) -> None:
    """Every patch is hidden in turn; a pixel has the mean over the patches that hide it."""
    network, x = classifier("vit", dims), image(dims)[(slice(None), *[slice(0, 16)] * dims)]
    network.encoder = ViT(1, [16] * dims, [4] * dims, hidden_size=24, mlp_size=48, layers=1, heads=3)
    found = occlusion(network, x, probability(1), patch=[8] * dims)
    network.eval()
    total, count = torch.zeros(x.shape[1:]), torch.zeros(x.shape[1:])
    with torch.no_grad():
        whole = network(x[None]).softmax(1)[0, 1]
        for corner in product((0, 4, 8), repeat=dims):
            box = tuple(slice(start, start + 8) for start in corner)
            hidden = x.clone()
            hidden[(0, *box)] = x.mean()
            total[box] += network(hidden[None]).softmax(1)[0, 1]
            count[box] += 1
    drop = (whole - total / count).clamp(min=0)
    assert found.peak == pytest.approx(float(drop.max()), rel=1e-3)
    assert torch.allclose(found.map, drop / drop.max(), atol=1e-3)


class OnePlace(Encoder):
    """A stage that copies the image, pooled at a single place: the answer is known."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.width, self.stride, self.stage = 1, (1,) * dims, nn.Identity()
        self.place = tuple(range(5, 5 + dims))

    def layers(self) -> list[nn.Module]:
        return [nn.Identity(), self.stage, nn.Identity()]


@pytest.mark.parametrize("dims", [2, 3])
def test_a_probe_of_one_place_is_sensitive_there_alone(dims: int) -> None:
    encoder = OnePlace(dims)

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.weight = encoder, nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * self.encoder.stage(x)[(slice(None), slice(None), *encoder.place)]

    x = torch.full((1, *[12] * dims), 0.25)
    x[(0, *encoder.place)] = 0.75
    found = occlusion(Probe(), x, number, patch=[1] * dims)
    expected = torch.zeros(x.shape[1:])
    expected[encoder.place] = 1
    assert torch.allclose(found.map, expected, atol=1e-5)
    assert found.peak == pytest.approx(2 * (0.75 - float(x.mean())), rel=1e-4)
    assert found.map.dtype == torch.float32
    # hiding a dark spot raises the output: no evidence
    assert occlusion(Probe(), 1 - x, number, patch=[1] * dims).peak == pytest.approx(0, abs=1e-6)
    # all channels but one weigh nothing: Grad-CAM shows that channel's map
    cam = grad_cam(Probe(), encoder, x, number)
    assert torch.allclose(cam.map, x[0] / x.max())


@pytest.mark.parametrize(("name", "dims"), EVERY)
def test_the_network_is_left_as_it_was(name: str, dims: int) -> None:
    """Frozen weights are no hindrance; gradients, modes, statistics and hooks of a training stay."""
    network = classifier(name, dims).train()
    network.encoder.requires_grad_(False).eval()
    head = network.head.weight
    head.grad = torch.full_like(head, 3.0)
    modes = [module.training for module in network.modules()]
    flags = [weight.requires_grad for weight in network.parameters()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    x = image(dims)
    with torch.no_grad():
        found = [
            grad_cam(network, network.encoder, x, evidence(1)),
            occlusion(network, x, probability(1), [SIDE[dims] // 2] * dims),
        ]
    assert all(torch.isfinite(one.map).all() and not one.map.requires_grad for one in found)
    assert [module.training for module in network.modules()] == modes
    assert [weight.requires_grad for weight in network.parameters()] == flags
    assert torch.equal(head.grad, torch.full_like(head, 3.0))
    assert all(weight.grad is None for weight in network.parameters() if weight is not head)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())


class Places(Encoder):
    """Patches that know their place and nothing of each other, so that evidence stays where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.stride = 16, (4, 4)
        self.patches, self.positions = nn.Conv2d(1, 16, 4, stride=4), nn.Parameter(torch.randn(1, 16, 4, 4) / 2)
        self.stage = nn.Sequential(nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU())

    def features(self, x: Tensor) -> Features:
        last = self.stage(self.patches(x) + self.positions)
        return Features([last], last.mean((2, 3)))

    def layers(self) -> list[nn.Module]:
        return [nn.Identity(), self.stage, nn.Identity()]


def pairs(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise with a square on the left, bright in class 1 and dark in class 0; one on the right is either by chance."""
    random = torch.Generator().manual_seed(seed)
    images, classes = 0.5 + torch.rand(count, 1, 16, 16, generator=random) * 0.2, torch.arange(count) % 2
    left, right = (torch.zeros(count, 16, 16, dtype=torch.bool) for _ in range(2))
    for k in range(count):
        for square, first in ((left, 0), (right, 8)):
            row, column = torch.randint(0, 9, (1,), generator=random).item(), first + k // 2 % 2 * 4
            square[k, row : row + 8, column : column + 4] = True
        images[k, 0][left[k]] += 0.4 if classes[k] else -0.4
        images[k, 0][right[k]] += 0.4 if torch.rand(1, generator=random) < 0.5 else -0.4
    return images, classes, left, right


def trained(network: Classifier, shuffled: bool) -> Classifier:
    images, classes, *_ = pairs(96, 0)
    if shuffled:
        classes = classes[torch.randperm(96, generator=torch.Generator().manual_seed(3))]
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(50):
        optimiser.zero_grad()
        functional.cross_entropy(network(images), classes).backward()
        optimiser.step()
    return network


def left_to_right(look: Callable[[Tensor, int], Tensor]) -> float:
    """Mean saliency of the true class in the squares that decide over that in those that do not; by chance 1."""
    images, classes, left, right = pairs(24, 1)
    maps = [look(x, k) for x, k in zip(images, classes.tolist(), strict=True)]
    inside, beside = (sum(float(m[s].mean()) for m, s in zip(maps, square, strict=True)) for square in (left, right))
    return inside / beside


@pytest.mark.parametrize(("shuffled", "low", "high"), [(False, 2.5, 10), (True, 0.6, 1.6)])
def test_the_square_that_makes_the_class_is_found_and_none_without_a_rule(shuffled: bool, low: float, high: float) -> None:
    torch.manual_seed(0)
    network = trained(Classifier(Places(), 2), shuffled)
    assert low < left_to_right(lambda x, k: grad_cam(network, network.encoder, x, evidence(k)).map) < high
    assert low < left_to_right(lambda x, k: occlusion(network, x, probability(k), patch=[4, 4]).map) < high


def test_hiding_the_square_takes_a_transformer_its_answer() -> None:
    torch.manual_seed(0)
    encoder = ViT(1, [16, 16], [4, 4], hidden_size=24, mlp_size=48, layers=2, heads=3)
    network = trained(Classifier(encoder, 2), shuffled=False)
    images, *_ = pairs(8, 1)
    falls = [occlusion(network, x, probability(k % 2), patch=[8, 8]).peak for k, x in enumerate(images)]
    assert sum(falls) / len(falls) > 0.2
    assert left_to_right(lambda x, k: occlusion(network, x, probability(k), patch=[4, 4]).map) > 2.5
