"""Two real processes, gloo: a training step by step against one process with the same batches, for every method and task."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from method_phantoms import RESNET, VIT, fresh, items_of, settings_for, waves
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from medssl.config import Finetune, Pretrain, Shared
from medssl.device import Compute
from medssl.finetune import training_of as finetuning_of
from medssl.loaders import Steps, collate
from medssl.methods import METHODS
from medssl.optimisers import optimiser_of, parameter_groups
from medssl.parallel import full, load_full, spread, whole_weights
from medssl.rank_norm import join_norms
from medssl.ranks import alone, own
from medssl.splits import Case, Split
from medssl.step import Step
from medssl.store import Store
from medssl.tasks import task_class
from medssl.training import Training

pytestmark = pytest.mark.slow  # half a minute of two processes on one core
WORLD, BATCH, PARTS, STEPS = 2, 8, 2, 3
CPU = Compute(torch.device("cpu"), None)
LABELS = {0: "background", 1: "dark", 2: "bright"}
Made = tuple[Training, Callable[[int], list[dict[str, Any]]]]  # and the items of a step


def pretraining(settings: Pretrain) -> Made:
    """The training of a method on phantoms."""
    method = fresh(settings)
    Compute(torch.device("cpu"), None, settings.recompute).place(method)
    spread(method, method.encoder, settings)
    training = Training(
        method, parameter_groups([(method, 1.0)]), method, lambda start: [], None, "val_loss", False,
        before_step=method.before_step,
    )  # fmt: skip
    return training, partial(items_of, settings, method, BATCH)


def finetuning(settings: Finetune, task: str) -> Made:
    """The training of a task on phantoms; the first half of a batch has other classes than the second."""
    cases = [Case(str(k), str(k), (), label=float(k) if task == "regression" else k % 3) for k in range(7)]
    split = Split(Path("split.json"), "made up", {0: "MR"}, task, LABELS, {"training": tuple(cases)})
    network = task_class(task)(settings, split)
    return finetuning_of(settings, CPU, split, Store([], []), network), partial(labelled, task)


def labelled(task: str, seed: int) -> list[dict[str, Any]]:
    """Phantoms with what a task asks for."""
    truth = {
        "segmentation": lambda image, k: {"label": (image > 0.4).byte() + (image > 0.7 + 0.1 * (k < 4)).byte()},
        "classification": lambda image, k: {"class": torch.tensor(k * 3 // BATCH)},
        "regression": lambda image, k: {"number": image.double().mean() + k},
    }[task]
    return [{"image": image, "id": str(k)} | truth(image, k) for k, image in enumerate(waves(BATCH, 2, seed)[0])]


def flat(name: str, **changes: Any) -> Finetune:
    """Small settings of a fine-tuning in 2D."""
    network = {"patch_size": [4, 4], "feature_size": 4} if name.startswith("vit") else {}
    table = {"vit_tiny": VIT, "resnet18": RESNET, "unet": {"name": "unet", "channels": [4, 8, 16]}}[name]
    return Finetune.model_validate({
        "split": "split.json", "out": "run", "steps": 9, "validate_every": 1, "batch_size": BATCH, "lr": 0.05,
        "clip": 1.0, "crop_size": [16, 16], "intensity": "percentile", "network": table | network,
        "accumulate": PARTS, "optimiser": "sgd",
    } | changes)  # fmt: skip


def with_method(name: str, network: Any = VIT, top: dict[str, Any] | None = None, **table: Any) -> Pretrain:
    """Small settings of a pre-training in 2D, the changes of `top` outside of the method's table."""
    values = settings_for(name, 2, network).model_dump()
    changes = {"batch_size": BATCH, "accumulate": PARTS, "optimiser": "sgd", "lr": 0.05, "clip": 1.0, "steps": 9}
    return Pretrain.model_validate(values | changes | {"method": values["method"] | table} | (top or {}))


QUEUE = {"queue": 8, "queue_after": 1, "freeze_prototypes": 2, "local_views": 1, "local_size": [8, 8], "prototypes": 4}
TRAININGS: dict[str, Callable[[], tuple[Shared, Callable[[], Made]]]] = {}


def of_method(settings: Pretrain) -> tuple[Shared, Callable[[], Made]]:
    return settings, lambda: pretraining(settings)


def of_task(task: str, settings: Finetune) -> tuple[Shared, Callable[[], Made]]:
    return settings, lambda: finetuning(settings, task)


TRAININGS = {
    **{name: lambda name=name: of_method(with_method(name)) for name in METHODS if name != "swav"},
    "mae": lambda: of_method(with_method("mae", background=0.045)),  # of which ranks have different numbers of patches
    "swav": lambda: of_method(with_method("swav", **QUEUE)),
    "pairs by class": lambda: of_method(with_method("pairs", by="class")),
    "simclr, batch norms": lambda: of_method(with_method("simclr", RESNET, top={"recompute": True}, spare_same_patient=True)),
    "mae, adamw": lambda: of_method(with_method("mae", top={"optimiser": "adamw", "lr": 1e-3})),
    "segmentation, thawing": lambda: of_task("segmentation", flat("vit_tiny", freeze_steps=1, unfreeze_every=1, rates="slice")),
    "segmentation, baseline": lambda: of_task("segmentation", flat("unet", progressive=[[8, 8]])),
    "classification, mixed": lambda: of_task("classification", flat("resnet18", mixup=0.4, class_weights="balanced")),
    "regression": lambda: of_task("regression", flat("vit_tiny", encoder_lr=0.1)),
}
SHARDED = {
    "recon_contrast": lambda: of_method(with_method("recon_contrast", top={"shard": True, "recompute": True})),
    "mae, adamw": lambda: of_method(with_method("mae", top={"optimiser": "adamw", "lr": 1e-3, "shard": True})),
    "simclr, batch norms": lambda: of_method(
        with_method("simclr", RESNET, spare_same_patient=True, top={"shard": True, "optimiser": "lars"})
    ),
    "swav": lambda: of_method(with_method("swav", **QUEUE, top={"shard": True})),
    "segmentation, thawing": lambda: of_task(
        "segmentation", flat("vit_tiny", freeze_steps=1, unfreeze_every=1, rates="slice", shard=True)
    ),
}


def trained(made: Callable[[], tuple[Shared, Callable[[], Made]]], rank: int = 0, ranks: int = 1) -> dict[str, Any]:
    """What a few steps told, and the weights and the optimiser's state after them."""
    settings, make = made()
    training, items = make()
    optimiser = optimiser_of(settings, training.groups)
    step, told = Step(settings, CPU, training, optimiser), []
    for number, own_items in enumerate(Steps(0, STEPS, BATCH, rank, ranks, PARTS), 1):
        everything = items(seed=number)
        chosen = [everything[k - (number - 1) * BATCH] | {"data_hash": f"{k:04d}"} for k in own_items]
        values = step(number, collate(chosen))
        told.append({key: value for key, value in values.items() if not key.endswith("_s")})
        validated(training, everything, rank)
    state = {"model": full(training.model.state_dict()), "optimiser": full(optimiser.state_dict())}
    again, _ = make()
    load_full(again.model, fresh_optimiser := optimiser_of(settings, again.groups), state)
    assert same(full(again.model.state_dict()), state["model"])
    assert same(full(fresh_optimiser.state_dict())["state"], state["optimiser"]["state"])
    return {"told": told} | state


def validated(training: Training, items: list[dict[str, Any]], rank: int) -> None:
    """Use the network as in validation, of which ranks may have different numbers of batches: here one has none."""
    training.model.eval()
    with whole_weights(training.model), torch.no_grad(), alone():
        for _ in range(rank):
            training.loss(collate(items))
            if hasattr(training.model, "encoder"):
                training.model.encoder.features(waves(2, 2, 0)[0])  # type: ignore[operator, union-attr]


def same(a: Any, b: Any) -> bool:
    """Whether two trees of tensors are equal."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def one_rank(rank: int, folder: str) -> None:
    """What each process does: all trainings on its share of the batches."""
    torch.set_num_threads(1)
    where = {"init_method": f"file://{folder}/rendezvous", "timeout": timedelta(seconds=120)}
    distributed.init_process_group("gloo", rank=rank, world_size=WORLD, **where)
    found = {name: trained(made, rank, WORLD) for name, made in TRAININGS.items()}
    found |= {f"{name}, sharded": trained(made, rank, WORLD) for name, made in SHARDED.items()}
    found["norms"] = list(normalised(ROWS, rank))
    found["exchanges"] = exchanges(rank)
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


ROWS = (4, 3, 5, 5)


def exchanges(rank: int) -> int:
    """How often a step of several parts sends the gradients, which fit into one bucket."""
    settings, make = TRAININGS["masked"]()
    training, items = make()
    step = Step(settings, CPU, training, optimiser_of(settings, training.groups))
    step.loss.follow()
    sent = list[int]()

    def hook(_: Any, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
        sent.append(bucket.index())
        return default_hooks.allreduce_hook(None, bucket)

    assert step.loss.wrapped is not None
    step.loss.wrapped.register_comm_hook(None, hook)
    for number in (1, 2):
        chosen = items(seed=number)[rank * BATCH // WORLD : (rank + 1) * BATCH // WORLD]
        step(number, collate([item | {"data_hash": ""} for item in chosen]))
    return len(sent)


def normalised(shape: tuple[int, ...], rank: int | None) -> Iterator[Tensor]:
    """Two steps of batch norms with and without weights: outputs, gradients and statistics."""
    random = torch.Generator().manual_seed(0)
    for norm in (nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False, momentum=None), nn.BatchNorm1d(3)):
        layers = nn.Sequential(norm)
        for p in layers.parameters():
            p.data = torch.randn(p.shape, generator=random)
        if rank is not None:
            join_norms(layers)
        for _ in range(2):
            x = 3 + 2 * torch.randn(shape if isinstance(norm, nn.BatchNorm2d) else shape[:2], generator=random)
            weight = torch.randn(x.shape, generator=random)
            mine = (own(x) if rank is not None else x).clone().requires_grad_()
            out = layers(mine)
            (out * (own(weight) if rank is not None else weight)).sum().backward()
            assert mine.grad is not None
            yield out.detach()
            yield mine.grad
        yield from (buffer.clone().float() for buffer in layers.buffers())


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found."""
    folder: Path = tmp_path_factory.mktemp("many-ranks")
    multiprocessing.start_processes(one_rank, (str(folder),), nprocs=WORLD, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", [*TRAININGS, *(f"{name}, sharded" for name in SHARDED)])
def test_two_ranks_train_as_one_process(name: str, ranks: list[dict[str, Any]]) -> None:
    made = TRAININGS[name] if name in TRAININGS else SHARDED[name.removesuffix(", sharded")]
    expected = trained(made)
    start = made()[1]()[0].model.state_dict()
    moved = max(
        float((expected["model"][key] - value).abs().max()) for key, value in start.items() if value.is_floating_point()
    )
    for found in (rank[name] for rank in ranks):
        for ours, theirs in zip(found["told"], expected["told"], strict=True):
            assert ours.pop("data_hash") == theirs["data_hash"]
            assert ours == pytest.approx({key: theirs[key] for key in ours}, rel=5e-5)
        for key, value in expected["model"].items():
            torch.testing.assert_close(
                found["model"][key], value, rtol=0, atol=5e-4 * moved, msg=lambda m, key=key: f"{key}: {m}"
            )
    assert same(ranks[0][name]["model"], ranks[1][name]["model"])
    assert ranks[0][name]["optimiser"]["state"].keys() == expected["optimiser"]["state"].keys()


def test_norms_of_two_ranks_are_those_of_all_rows(ranks: list[dict[str, Any]]) -> None:
    for first, second, whole in zip(ranks[0]["norms"], ranks[1]["norms"], normalised(ROWS, None), strict=True):
        joined = torch.cat([first, second]) if len(whole.shape) > 1 else first
        torch.testing.assert_close(joined, whole, rtol=1e-5, atol=1e-5)


def test_only_the_last_part_of_a_batch_sends_gradients(ranks: list[dict[str, Any]]) -> None:
    assert [rank["exchanges"] for rank in ranks] == [2, 2]  # of two steps
