"""What only the report of a pre-training has: its answer, the views of its crops, its embeddings."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from medssl.embeddings import embedding_figure, pca
from medssl.reports.page import picture
from medssl.reports.pictures import CONVENTION, views_figure
from medssl.runs import Run


def pretraining_answer(run: Run) -> str:
    """Say in a few sentences what came out, beside what a network gets that has learned nothing."""
    s = run.summary
    name = str(s.get("watched", "val_l1"))
    said = []
    if s.get(name) is not None:
        best = f"at step {s['best_step']}" if s.get("best_step") is not None else "at the end"
        said.append(f"The best validation {words(name)} is {s[name]:.4f}, {best}.")
    said += [f"Chance is {value:.3f} for the {words(part)}." for part, value in (s.get("chance") or {}).items()]
    if s.get("effective_rank") is not None:
        spread = f"spread {s['feature_spread']:.2f} (1 even, 0 collapsed)"
        said.append(f"The embeddings of validation crops have {spread} and effective rank {s['effective_rank']:.1f}.")
    said.append("Whether it helps a task only a probe or a comparison of fine-tuned runs can say.")
    return " ".join(said)


def reads_labels(run: Run) -> bool:
    """Tell whether a setting made the pre-training read labels: pairs by class, or a mask of what they mark."""
    return run.config.get("mask") == "label" or by_class(run)


def by_class(run: Run) -> bool:
    """Tell whether the method pairs crops by their class."""
    method = run.config.get("method")
    return isinstance(method, dict) and method.get("by") == "class"


def words(name: str) -> str:
    """A figure of metrics.jsonl in words."""
    return {"l1": "L1", "nt_xent": "NT-Xent"}.get(name.removeprefix("val_"), name.removeprefix("val_").replace("_", " "))


def views(run: Run, arrays: Mapping[str, Any]) -> str:
    """Give the picture of validation crops with their views and what the method makes of them."""
    if "image" not in arrays:
        return ""
    volume = np.asarray(arrays["image"]).ndim == 5
    caption = f"Validation crops and what {run.summary.get('method')} makes of them, on the grey scale of each crop."
    colour = not volume and list((run.split.get("modality") or {}).values()) == ["R", "G", "B"]
    png = views_figure(arrays, colour=colour)
    return picture(png, f"Views of crops, {run.name}", f"{caption} {CONVENTION if volume else ''}", wide=True)


def embeddings(run: Run, arrays: Mapping[str, Any]) -> str:
    """Give the picture of the embeddings of validation crops, coloured by class where the split knows classes."""
    if "features" not in arrays or len(arrays["features"]) < 3:
        return ""
    names = [str(name) for _, name in sorted((run.split.get("labels") or {}).items(), key=lambda item: int(item[0]))]
    classes = None if (arrays["classes"] < 0).any() else arrays["classes"]
    told = "" if classes is None else f" The classes were {'' if by_class(run) else 'not '}used in training."
    caption = f"Embeddings of validation crops on their two first principal axes.{told}"
    points, explained = pca(arrays["features"])
    png = embedding_figure(points, classes, names, explained=explained)
    return picture(png, f"Embeddings, {run.name}", caption)
