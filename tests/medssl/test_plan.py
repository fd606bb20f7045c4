"""What an encoder remembers of where it comes from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medssl.config import Finetune, Pretrain
from medssl.data import load_data
from medssl.plan import ancestry_of, build_encoder, differences, plan_of, seen_before, start_encoder
from medssl.problems import InputError
from networks.transfer import write_weights

NATURAL = {"method": {"name": "barlow"}, "data": "natural", "channels": 3, "step": 9, "seed": 4, "seen": ["0123456789abcdef"]}


def saved(path: Path, settings: Pretrain, channels: int, plan: dict[str, Any]) -> Path:
    """Write the encoder of the settings with a plan of its own."""
    write_weights(path, build_encoder(settings, channels), {"network": settings.network.model_dump()} | plan)
    return path


def test_a_chain_remembers_all_that_the_weights_went_through(pretraining: Callable[..., Pretrain], tmp_path: Path) -> None:
    first = saved(tmp_path / "natural.safetensors", pretraining(), 3, NATURAL)
    second = pretraining(encoder=str(first), method="simclr")
    report = start_encoder(build_encoder(second, 1), second)
    assert report is not None
    assert len(report.adapted) == 1  # three channels became one
    split, store = load_data(second, ["pretraining", "validation"], labels=False)
    plan = plan_of(second, split, store, step=7)
    assert [(step["data"], step["channels"], step["step"]) for step in plan["ancestry"]] == [("natural", 3, 9)]
    assert set(plan["seen"]) == {entry.content[:16] for entry in store.entries.values()} - {
        store.entries[case.id].content[:16] for case in split.part("validation")
    } | {"0123456789abcdef"}
    file = saved(tmp_path / "brain.safetensors", second, 1, plan)
    third = pretraining(encoder=str(file))
    assert [step["file"] for step in ancestry_of(third)] == [str(first), str(file)]
    assert [step["method"]["name"] for step in ancestry_of(third)] == ["barlow", "simclr"]
    entries = [store.entries[case.id] for case in split.part("pretraining")]
    assert len(seen_before(third, entries)) == len(entries)  # a grandchild still may not be judged on them


def test_what_leaves_no_trace_in_the_weights_is_said(pretraining: Callable[..., Pretrain], tmp_path: Path) -> None:
    small = {"name": "resnet18", "width": 4, "stem_pool": False}
    settings = pretraining(network=small, method="simclr")
    file = saved(tmp_path / "e.safetensors", settings, 1, {"spacing": None, "mask": "none"})
    other = pretraining(network=small | {"stem_pool": True}, method="simclr", encoder=str(file))
    assert differences(other) == ["warning: network.stem_pool is True here, the encoder was pre-trained with False"]
    assert differences(pretraining(network=small, method="simclr", encoder=str(file))) == []


def test_other_heads_and_unsuited_channels_are_said(pretraining: Callable[..., Pretrain], tmp_path: Path) -> None:
    vit = {"name": "vit_tiny", "patch_size": [8, 8, 8], "hidden_size": 24, "mlp_size": 24, "layers": 2, "heads": 3}
    settings = pretraining(network=vit, method="simclr")
    file = saved(tmp_path / "e.safetensors", settings, 1, {})
    other = pretraining(network=vit | {"heads": 6}, method="simclr", encoder=str(file))
    assert start_encoder(build_encoder(other, 1), other) is not None  # no tensor tells
    assert differences(other) == ["warning: network.heads is 6 here, the encoder was pre-trained with 3"]
    with pytest.raises(InputError, match=r"network.normalise: found imagenet with 2 channels, expected 1 or 3"):
        build_encoder(pretraining(network=vit | {"normalise": "imagenet"}, method="simclr"), 2)


def test_an_encoder_of_another_architecture_is_refused(
    pretraining: Callable[..., Pretrain], finetuning: Callable[..., Finetune], tmp_path: Path
) -> None:
    file = saved(tmp_path / "vit.safetensors", pretraining(), 1, {})
    settings = pretraining(network={"name": "resnet18", "width": 4}, method="simclr", encoder=str(file))
    with pytest.raises(InputError) as refused:
        start_encoder(build_encoder(settings, 1), settings)
    assert len(refused.value.problems) == 1
    assert refused.value.problems[0].file == str(file)
