"""The code that an export prints, run where medssl can't be imported, makes a network that answers as the run's does."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import KINDS

from medssl.cli import main
from medssl.exports.constructors import difference, examples, one_of
from medssl.exports.source import read_source
from networks import build_encoder
from networks.transfer import load_encoder, read_weights

QUICK = {"UNETR 3D", "ResNet 2D", "SwinTransformer 2D", "build patches 3D"}
ALONE = """
import json, os, sys
import numpy as np, torch
for folder, lines in json.load(open("jobs.json")):
    os.chdir(folder)
    sys.path.insert(0, folder)
    names = {}
    exec("\\n".join(lines), names)
    images = torch.from_numpy(np.load("images.npy"))
    with torch.inference_mode():
        output = names["network"](images)
    output = output[-1] if isinstance(output, list) else output[0] if isinstance(output, tuple) else output
    np.save("output.npy", output.numpy())
    sys.path.remove(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        assert sys.modules.pop(name).__file__.startswith(folder)
assert not {"medssl", "networks", "transforms"} & set(sys.modules)
"""


def exported(run: Path, form: str, capsys: pytest.CaptureFixture[str]) -> tuple[Path, list[str]]:
    """Export as the command does; gives the folder and the lines of code that it printed."""
    assert main(["export", str(run), "--to", form]) == 0
    folder, _, *lines = capsys.readouterr().out.splitlines()
    return Path(folder), lines


@pytest.mark.parametrize("kinds", [QUICK, pytest.param(sorted(KINDS.keys() - QUICK), marks=pytest.mark.slow)], ids=len)
def test_networks_of_all_kinds_answer_alike_without_medssl(
    kinds: Iterable[str], make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, expected = [], {}
    for kind in kinds:
        source = read_source(run := make_run(kind))
        images = examples(source, 2)
        with torch.inference_mode():
            answer = one_of(source.network(images))
        for form in ("safetensors", "huggingface"):
            folder, lines = exported(run, form, capsys)
            code = "\n".join(lines)
            assert (" as build" in code or "import build" in code) == kind.startswith("build"), f"{kind}: {code}"
            if form == "safetensors" and kind.startswith("build"):  # whose code only the others bring along
                continue
            if form == "huggingface":
                assert code in (folder / "README.md").read_text()
            np.save(folder / "images.npy", images.numpy())
            jobs.append((str(folder), lines))
            expected[kind, folder] = answer
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for (kind, folder), answer in expected.items():
        assert difference(torch.from_numpy(np.load(folder / "output.npy")), answer) < 1e-5, kind


def test_the_exported_encoder_is_one_to_start_from(make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Of a pre-training and of a fine-tuned network, with its plan, which names no folder of this machine."""
    for kind in ("ViT 3D", "UNETR 3D"):
        source = read_source(run := make_run(kind))
        folder, _ = exported(run, "safetensors", capsys)
        tensors, plan = read_weights(folder / "model.safetensors")
        arguments = {k: v for k, v in source.arguments.items() if k not in ("outputs", "decoder", "feature_size", "any_size")}
        encoder = build_encoder(**arguments)
        assert not load_encoder(encoder, tensors, plan).missing
        assert plan is not None
        assert (plan["image_size"], plan["started_from"]) == ([32, 32, 32], "enc.pt")
