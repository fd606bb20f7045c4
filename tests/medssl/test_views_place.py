"""Views made on the device: the same data for any number of workers, parts of a batch, and after a resume."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_engine import lines

from medssl.config import Pretrain
from medssl.data import load_data
from medssl.device import Compute
from medssl.loaders import Crops, training_loader
from medssl.methods import method_class
from medssl.methods.recon_contrast import ReconContrast
from medssl.plan import build_encoder
from medssl.pretrain import pretrain
from medssl.problems import RunError
from medssl.views_place import are_on_device, loaded_views, with_views
from networks.transfer import read_weights

Make = Callable[..., Pretrain]
CPU = Compute(torch.device("cpu"), None)


def batches(settings: Pretrain) -> list[dict[str, Any]]:
    """The batches of a training with their views, and the transform that the loader applied."""
    split, store = load_data(settings, ["pretraining", "validation"], labels=False)
    method = method_class(settings.method.name)(build_encoder(settings, split.channels), settings)
    transform = loaded_views(settings, CPU, method)
    crops = Crops(store, split.part("pretraining"), settings, transform)
    return [
        {"transform": transform, "drawn": batch, "made": with_views(transform, batch)} for batch in training_loader(crops, 0)
    ]


def test_auto_is_the_device_only_where_that_is_a_gpu(pretraining: Make) -> None:
    gpu = Compute(torch.device("cuda"), None)
    found = [
        [are_on_device(pretraining(views_on=on), compute) for on in ("auto", "loader", "device")] for compute in (CPU, gpu)
    ]
    assert found == [[False, False, True], [True, False, True]]


@pytest.mark.parametrize("method", ["recon_contrast", "masked", "pairs", "simclr", "barlow", "swav", "vicreg", "mae"])
def test_every_method_gets_views_of_the_same_names_types_and_shapes_from_both_places(pretraining: Make, method: str) -> None:
    table = {"name": method} | ({"prototypes": 4, "local_views": 2, "local_size": [16, 16, 16]} if method == "swav" else {})
    table |= {"decoder_width": 16, "decoder_layers": 1, "decoder_heads": 2} if method == "mae" else {}
    loader, device = (
        batches(pretraining(steps=1, region=None, method=table, views_on=on))[0]["made"] for on in ("loader", "device")
    )
    assert set(loader) == set(device)
    for key, value in loader.items():
        if isinstance(value, torch.Tensor):
            assert (device[key].shape, device[key].dtype, device[key].is_contiguous()) == (value.shape, value.dtype, True), key
    assert torch.equal(loader["image"], device["image"])


def test_the_noise_of_a_crop_depends_on_its_hash_alone_so_also_in_a_part_of_the_batch(pretraining: Make) -> None:
    first = batches(pretraining(steps=1, views_on="device"))[0]
    other = with_views(first["transform"], first["drawn"] | {"data_hash": ["5", *first["made"]["data_hash"][1:]]})
    assert [torch.equal(a, b) for a, b in zip(first["made"]["view_0"], other["view_0"], strict=True)] == [False, *[True] * 3]
    halves = [{key: value[part] for key, value in first["drawn"].items()} for part in (slice(0, 1), slice(1, 4))]
    made = [with_views(first["transform"], half) for half in halves]
    for key in ("view_0", "view_1"):
        assert torch.equal(torch.cat([half[key] for half in made]), first["made"][key])


def test_the_hash_of_a_crop_covers_its_draws(pretraining: Make) -> None:
    table = pretraining().method.model_dump()
    runs = [batches(pretraining(views_on="device", method=table | more)) for more in ({}, {}, {"shuffle_prob": 0.9})]
    hashes = [[checksum for batch in run for checksum in batch["made"]["data_hash"]] for run in runs]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == 24
    assert 0 < sum(a != b for a, b in zip(hashes[0], hashes[2], strict=True)) < 24  # those now shuffled


def test_a_run_with_views_on_the_device_resumes_bit_for_bit_with_any_workers(
    pretraining: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = (pretraining(views_on="device", out=tmp_path / name) for name in ("straight", "broken"))
    pretrain(straight)
    assert "views made on the device in batches" in (straight.out / "log.txt").read_text()
    steps, forward = iter(range(1, 100)), ReconContrast.forward

    def failing(self: ReconContrast, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if next(steps) == 4:
            raise RunError("broken off")
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ReconContrast, "forward", failing)
        with pytest.raises(RunError, match="broken off"):
            pretrain(broken)
    assert [line["step"] for line in lines(broken.out)] == [1, 2, 3, 3]
    pretrain(broken.model_copy(update={"workers": 2}), resume=True)
    assert lines(broken.out) == lines(straight.out)
    weights = [read_weights(folder / "encoder.safetensors")[0] for folder in (straight.out, broken.out)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
