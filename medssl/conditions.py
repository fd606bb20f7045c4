"""What a run was made with: while that stays the same, a resumed run equals an uninterrupted one bit for bit.

Every checkpoint holds it. Besides settings and data these are the versions of the libraries, the device, the precision
and the threads of a step, among which sums are divided: another order of a sum has other last bits. Another number of ranks
divides sums otherwise as well, and is let through as always: the same training, to rounding.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from medssl import __version__
from medssl.config import AS_RESOLVED, WITHOUT_EFFECT, Shared
from medssl.config.tables import flat
from medssl.device import Compute
from medssl.preparation import files_of
from medssl.ranks import world_size
from medssl.recipes import shorten
from medssl.splits import Split
from medssl.store import Store

SHORT = 16  # hexadecimal digits of a hash that a person compares


def conditions_of(settings: Shared, compute: Compute, data: Mapping[str, str]) -> dict[str, Any]:
    """What this process trains with, by name; `data` as of `data_of`."""
    cpu = compute.device.type == "cpu"
    return {
        "ranks": str(world_size()) + (", sharded" if settings.shard and world_size() > 1 else ""),
        "threads": torch.get_num_threads() if cpu else None,
        "device": f"cpu with {torch.backends.cpu.get_cpu_capability()}" if cpu else torch.cuda.get_device_name(compute.device),
        "precision": "bfloat16" if compute.autocast else "float32",
        "compiled": bool(compute.compiled),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "medssl": __version__,
        "torch": str(torch.__version__),
        "monai": version("monai"),
        "numpy": version("numpy"),
        **{f"data, {part}": told for part, told in data.items()},
        **telling(json.loads(settings.model_dump_json())),
    }


def telling(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what is computed, those of tables by dotted names."""
    return flat({key: value for key, value in config.items() if key not in WITHOUT_EFFECT | AS_RESOLVED})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is not as it was: its name, its value before and its value now. Without the number of ranks, and then threads."""
    others = {"ranks", "threads"} if before.get("ranks") != now.get("ranks") else {"ranks"}
    return [
        (name, shown(before.get(name)), shown(now.get(name)))
        for name in {**before, **now}
        if name not in others and before.get(name) != now.get(name)
    ]


def shown(value: Any) -> str:
    """A value in a few characters; text as it is."""
    return value if isinstance(value, str) and value else shorten(value)


def data_of(settings: Shared, split: Split, parts: Sequence[str], store: Store, labels: bool) -> dict[str, str]:
    """For each part of a split that is read: how many cases, and a hash of what is read of them, in their order.

    Of files it is the bytes that count, not where they lie; the order decides which case is drawn when.
    """
    head = [split.task, split.labels, split.modality, split.grouped_by]
    marked, masked = labels or settings.mask == "label", settings.roi is not None
    found: dict[str, str] = {}
    for part in parts:
        cases: list[Any] = []
        for case in split.part(part):
            label = None if isinstance(case.label, Path) else case.label
            digests = [digest for _, digest in store.entries[case.id].files[: len(files_of(case, marked, masked))]]
            cases.append([case.id, case.patient, case.weight, case.missing, label, digests])
        found[part] = f"{len(cases)} cases {sha256(json.dumps([head, cases]).encode()).hexdigest()[:SHORT]}"
    return found
