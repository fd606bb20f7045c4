"""Study folders made by hand: a study.json and run folders whose scores are drawn with known effects and variances."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fabricated_runs import finetune_run, pretrain_run, write

Floats = npt.NDArray[np.float64]


def crossed_values(
    random: np.random.Generator, seeds: int, patients: int, of_patient: float, of_seed: float, rest: float, mean: float = 0.0
) -> Floats:
    """Draw values (seeds, patients) with these standard deviations of patients, seeds and their rest."""
    values = random.normal(0, of_patient, patients) + random.normal(0, of_seed, (seeds, 1))
    drawn: Floats = mean + values + random.normal(0, rest, (seeds, patients))
    return drawn


def study(
    root: Path,
    scores: Mapping[str, Mapping[int, float]],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    patients: int = 20,
    noise: float = 1.0,
    compare: Sequence[Sequence[str]] | None = None,
    axes: Mapping[str, Mapping[str, Any]] | None = None,
    origins: Mapping[str, str] | None = None,
) -> Path:
    """Write a finished study; `scores` gives the mean Dice of each arm at its numbers of labels.

    Arms called random or unet start at random, each other from the pre-training of its own name, or from that which
    `origins` names. `noise` scales the standard deviations: patients 0.05, shared by all arms, seeds 0.005, rest 0.01.
    """
    random = np.random.default_rng(0)
    shared = random.normal(0, 0.05 * noise, patients)
    root.mkdir(parents=True)
    runs: dict[str, Any] = {}
    for arm, by_count in scores.items():
        encoder = "none" if arm in ("random", "unet") else f"runs/{(origins or {}).get(arm, f'pretrain-{arm}')}"
        if encoder != "none" and encoder not in runs:
            pretrained = pretrain_run(root / encoder)
            runs[encoder] = {"arm": arm, "kind": "pretrain", "axes": {"seed": 0}}
            method = "mae" if "mae" in arm else "recon_contrast"
            rename(pretrained, {"method": method, "batch_size": 8, "seed": 0, "split": "mine.json"})
        for count, mean in by_count.items():
            drawn = mean + shared + crossed_values(random, len(seeds), patients, 0, 0.005 * noise, 0.01 * noise)
            for seed, values in zip(seeds, drawn, strict=True):
                name = f"runs/{arm}-{count}-{seed}".replace(" ", "_")
                cases = {f"p{k}_1": [float(value) + 0.02, float(value) - 0.02] for k, value in enumerate(values)}
                network = "unet" if arm == "unet" else "vit_small"
                weights = "none" if encoder == "none" else str(root / encoder)
                config = {"batch_size": 4, "judge": "test"}
                finetune_run(root / name, cases, encoder=weights, seed=seed, network=network, labelled=count, config=config)
                own = (axes or {}).get(arm, {})
                runs[name] = {"arm": arm, "kind": "finetune", "axes": {"labelled": count, "seed": seed, **own}}
    pairs = compare if compare is not None else [[arm, "random"] for arm in scores if arm != "random"]
    write(root / "study.json", {"about": "a made-up study", "runs": runs, "compare": list(pairs), "measure": "dice"})
    return root


def rename(run: Path, settings: Mapping[str, Any]) -> None:
    """Give a pre-training other settings."""
    import json

    for name in ("config.json", "summary.json"):
        write(run / name, json.loads((run / name).read_text()) | dict(settings))
