"""A small study and its split as plain data, without images."""

import json
from pathlib import Path
from typing import Any

from medssl.study.plan import Plan, plan
from medssl.study.schema import read_study

STUDY: dict[str, Any] = {
    "about": "does it help?",
    "shared": {"split": "split.json", "workers": 0},
    "pretrain": {"rc": {"recipe": "demo_pretrain"}},
    "arms": {
        "random": {"recipe": "demo_finetune"},
        "pretrained": {"like": "random", "encoder": {"pretrain": "rc"}},
    },
    "axes": {"labelled": [2, 4, None], "seed, draw": [0, 1]},
    "compare": [["pretrained", "random"]],
    "measure": "dice",
}
CASES = [{"id": f"c{i:02d}", "patient": f"P{i:02d}", "image": f"{i}.nii", "label": f"l{i}.nii"} for i in range(20)]
BARE = [{key: case[key] for key in ("id", "patient", "image")} for case in CASES[:10]]
SPLIT: dict[str, Any] = {
    "labels": {"0": "background", "1": "organ"}, "pretraining": BARE, "training": CASES[4:10],
    "validation": CASES[10:12], "test": CASES[12:],
}  # fmt: skip


def changed(**changes: Any) -> dict[str, Any]:
    """The study with changes, a table merged with the one that is there."""
    return STUDY | {key: STUDY.get(key, {}) | value if isinstance(value, dict) else value for key, value in changes.items()}


def planned(content: dict[str, Any], *words: str) -> Plan:
    """Plan the study for the folder `out` of the present one."""
    Path("study.json").write_text(json.dumps(content))
    return plan(*read_study("study.json", words), Path("out"))
