"""Rates and freeing by depth: the table of scales of both families, and which weights move at which step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from medssl.config import Finetune, encoder_sizes
from medssl.depth import halves, scaled_parts
from medssl.freezing import Freezing
from medssl.optimisers import optimiser_of, parameter_groups
from networks import build_encoder
from networks.features import Encoder
from networks.heads import Classifier

VIT = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 3}
RESNET = {"name": "resnet18", "width": 4, "stem_stride": 1, "stem_pool": False}
NETWORKS = {"vit": VIT, "resnet": RESNET}


@pytest.fixture
def settings_of(finetuning: Callable[..., Finetune]) -> Callable[..., Finetune]:
    """Settings of a network on images, with changes."""
    return lambda network, **changes: finetuning(crop_size=[32, 32], network=NETWORKS[network], **changes)


def encoder_of(settings: Finetune) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(settings.network.name, 1, settings.crop_size, **encoder_sizes(settings.network))  # type: ignore[arg-type]


def scales(encoder: Encoder, settings: Finetune) -> dict[str, float]:
    """The scale of each parameter of a classifier, by its name in the encoder or in the head; an optimiser has each once."""
    network = Classifier(encoder, 3)
    groups = parameter_groups([*scaled_parts(encoder, settings), (network, 1.0)])
    found = [(id(p), group["scale"]) for group in groups for p in group["params"]]
    trained = {id(p): name.removeprefix("encoder.") for name, p in network.named_parameters() if p.requires_grad}
    assert sorted(place for place, _ in found) == sorted(trained)
    return {trained[place]: scale for place, scale in found}


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to, as the tables below call it."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in ("blocks", "layer1", "layer2", "layer3", "layer4") else parts[0]


VIT_LAYERS = ["patch_embedding", "blocks.0", "blocks.1", "blocks.2", "norm", "head"]
RESNET_LAYERS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
STEM = ["conv1", "bn1"]


@pytest.mark.parametrize(
    ("network", "changes", "table"),
    [
        ("vit", {}, dict.fromkeys(VIT_LAYERS, 0.04) | {"head": 1}),
        ("vit", {"rates": "slice"}, dict.fromkeys(VIT_LAYERS[:2], 0.04) | dict.fromkeys(VIT_LAYERS[2:5], 0.2) | {"head": 1}),
        (
            "vit",
            {"rates": "layers", "layer_decay": 0.5},  # 0.04 * 0.5^(L + 1 - i), L = 3
            dict(zip(VIT_LAYERS, [0.0025, 0.005, 0.01, 0.02, 0.04, 1], strict=True)),
        ),
        (
            "resnet",
            {"rates": "slice"},
            dict.fromkeys([*STEM, *RESNET_LAYERS[:4]], 0.04) | dict.fromkeys(RESNET_LAYERS[4:], 0.2) | {"head": 1},
        ),
        (
            "resnet",
            {"rates": "layers", "layer_decay": 0.5},  # L = 8
            dict.fromkeys(STEM, 0.04 / 512) | {name: 0.04 / 2 ** (8 - k) for k, name in enumerate(RESNET_LAYERS)} | {"head": 1},
        ),
        (
            "resnet",
            {"schedule": "fine_tune", "freeze_steps": 2, "encoder_lr": 1.0},
            dict.fromkeys([*STEM, *RESNET_LAYERS[:4]], 0.01) | dict.fromkeys(RESNET_LAYERS[4:], 0.1) | {"head": 1},
        ),
    ],
)
def test_every_parameter_has_the_rate_of_its_depth(
    network: str, changes: dict[str, Any], table: dict[str, float], settings_of: Callable[..., Finetune]
) -> None:
    settings = settings_of(network, **{"encoder_lr": 0.04} | changes)
    found = scales(encoder_of(settings), settings)
    assert {layer_of(name) for name in found} == set(table)
    assert found == pytest.approx({name: table[layer_of(name)] for name in found})


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_and_halves_hold_every_weight_once(network: str, settings_of: Callable[..., Finetune]) -> None:
    encoder = encoder_of(settings_of(network))
    whole = [id(p) for p in encoder.parameters()]
    for parts in (encoder.layers(), halves(encoder)):
        assert sorted(id(p) for part in parts for p in part.parameters()) == sorted(whole)


def moved(settings: Finetune, optimiser_name: str, steps: int) -> list[set[str]]:
    """Train on noise, and name after each step the layers of which a weight or a statistic is not what it was before."""
    settings = settings.model_copy(update={"optimiser": optimiser_name, "weight_decay": 0.1})
    encoder = encoder_of(settings)
    network, freezing = Classifier(encoder, 3), Freezing(encoder, settings)
    optimiser = optimiser_of(settings, parameter_groups([*scaled_parts(encoder, settings), (network, 1.0)]))
    found = []
    for step in range(1, steps + 1):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        network.train()
        freezing.before_step(step)
        loss = nn.functional.cross_entropy(network(torch.randn(4, 1, 32, 32)), torch.tensor([0, 1, 2, 0]))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        after = network.state_dict()
        changed = {name.removeprefix("encoder.") for name in after if not torch.equal(after[name], before[name])}
        found.append({layer_of(name) for name in changed})
    return found


HEAD = {"head"}
UPPER, LOWER = set(RESNET_LAYERS[4:]), {*STEM, *RESNET_LAYERS[:4]}


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", "lars"])
def test_parts_are_freed_from_the_top_and_what_is_frozen_stands_still(
    optimiser: str, settings_of: Callable[..., Finetune]
) -> None:
    """Weights and the statistics of batch norms, under weight decay and momentum."""
    gradual = settings_of("resnet", freeze_steps=1, unfreeze_every=2, lr=1e-2)
    assert moved(gradual, optimiser, 4) == [HEAD, HEAD | UPPER, HEAD | UPPER, HEAD | UPPER | LOWER]
    at_once = settings_of("resnet", freeze_steps=2, lr=1e-2)
    assert moved(at_once, optimiser, 3) == [HEAD, HEAD, HEAD | UPPER | LOWER]


def test_layers_are_freed_one_by_one(settings_of: Callable[..., Finetune]) -> None:
    vit = settings_of("vit", rates="layers", freeze_steps=1, unfreeze_every=1, lr=1e-2)
    counted = [{"head"}] + [set(VIT_LAYERS[first:]) for first in (3, 2, 1, 0)]
    assert moved(vit, "adamw", 5) == counted
    resnet = settings_of("resnet", rates="layers", unfreeze_every=1, lr=1e-2)
    expected = [{*RESNET_LAYERS[7 - k :], "head"} for k in range(8)] + [{*STEM, *RESNET_LAYERS, "head"}]
    assert moved(resnet, "sgd", 9) == expected


def test_norms_of_frozen_parts_go_on_averaging_where_settings_let_them(settings_of: Callable[..., Finetune]) -> None:
    lively = settings_of("resnet", freeze_steps=1, unfreeze_every=2, frozen_norm="train", lr=1e-2)
    first = moved(lively, "sgd", 1)[0]
    assert first == {"head", "bn1", *RESNET_LAYERS}  # but not conv1, which has no norm of its own
