"""The space of a search, read from words and files and checked by the settings themselves."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from medssl.cli import main
from medssl.config import Finetune, Pretrain
from medssl.problems import InputError
from medssl.recipes import read_settings
from medssl.tuning.command import check_data, is_study
from medssl.tuning.space import Choice, Range, Space, default_space, read_words, space_of, value_of

WORDS = ["split=split.json", "workers=0"]


def space(*words: str, recipe: str = "demo_finetune", base: list[str] | None = None) -> Space:
    return space_of(Pretrain if "pretrain" in recipe else Finetune, recipe, base or WORDS, read_words(words))


def test_ranges_choices_and_whole_numbers() -> None:
    found = space(
        "lr=1e-4..1e-2", "encoder_lr=0..1", "batch_size=2..8", "weight_decay=0,0.01,0.05", "optimiser=adamw,sgd",
        "warmup=1..100", "network.feature_size=4,8", "crop_size=[32,32,32],[48,48,48]", "schedule=cosine,one_cycle",
        base=[*WORDS, "warmup=0"],
    )  # fmt: skip
    assert found["lr"] == Range(1e-4, 1e-2, whole=False)
    ranges = {name: values for name, values in found.items() if isinstance(values, Range)}
    assert {name: (values.log, values.whole) for name, values in ranges.items()} == {
        "lr": (True, False), "encoder_lr": (False, False), "batch_size": (False, True), "warmup": (True, True),
    }  # fmt: skip
    assert found["weight_decay"] == Choice(("0", "0.01", "0.05"))
    assert found["crop_size"] == Choice(("[32, 32, 32]", "[48, 48, 48]"))
    assert str(found["lr"]) == "0.0001 to 0.01 (by the logarithm)"
    assert str(found["batch_size"]) == "2 to 8 (whole numbers)"
    base = read_settings(Finetune, "demo_finetune", WORDS)
    assert all(values.holds(value_of(base, name)) for name, values in found.items())


def test_a_drawn_number_reads_well_and_stays_inside() -> None:
    assert Range(1e-4, 1e-2, whole=False).rounded(0.00123456) == 0.00123
    assert Range(0.00012345, 0.00012349, whole=False).rounded(0.00012348) == 0.00012345


def test_a_file_is_a_space_too(tmp_path: Path) -> None:
    file = tmp_path / "space.json"
    file.write_text(json.dumps({"lr": "1e-4..1e-2", "weight_decay": [0, 0.1]}))
    assert space(str(file)) == space("lr=1e-4..1e-2", "weight_decay=0,0.1")


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["lrr=0.1..1"], ["space: lrr: found an unknown setting, expected 'lr'?"]),
        (["network.layerz=2,3"], ["space: network.layerz: found an unknown setting, expected 'layers'?"]),
        (["lr=1e-2..1e-4"], ["space: lr: found an empty range, 1e-2..1e-4, expected from..to, the first below the second"]),
        (["lr=0..1"], ["space: lr: found 0, expected greater than 0"]),
        (["momentum=0.5..1.5"], ["space: momentum: found 1.5, expected less than 1"]),
        (["batch_size=2..4.5"], ["space: batch_size: found 4.5, expected a valid integer"]),
        (["optimiser=adamw,adagrad"], ["space: optimiser: found \"adagrad\", expected 'adamw'"]),
        (["lr=0.1"], ["space: lr: found 0.1, expected several values"]),
        (["lr="], ["space: lr: found nothing, expected several values"]),
        (["lr=1,1"], ["space: lr: found 1, 1, expected several values"]),
        (["lr=1..2", "lr=2..3"], ["space: lr: found the setting twice, expected once"]),
        (["judge=test,validation"], ["space: judge: found a setting that says what is asked"]),
        (["steps=10..20"], ["space: steps: found a setting that moves the validations"]),
        (["workers=0,2"], ["space: workers: found a setting without effect on the result"]),
        (["seed=1..9", "lr=-1..1", "crop_sice=1,2"], ["seed: found", "lr: found -1", "crop_sice: found an unknown"]),
        (["no_such.json"], ["no_such.json: space: found"]),
    ],
)
def test_mistakes_of_a_space_are_named(words: list[str], lines: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        space(*words)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(lines), found
    assert all(line in text for line, text in zip(lines, found, strict=True)), found


def test_default_spaces() -> None:
    def default(recipe: str, *words: str) -> dict[str, Any]:
        kind = Pretrain if "pretrain" in recipe else Finetune
        return default_space([read_settings(kind, recipe, [*WORDS, *words])])

    wanted = default("demo_finetune", "lr=0.01", "weight_decay=0.2")
    assert wanted == {"lr": "0.0018..0.056", "encoder_lr": "0.01..1", "weight_decay": [0.0, 0.01, 0.05, 0.2]}
    low, high = map(float, wanted["lr"].split(".."))
    assert math.log10(high / low) == pytest.approx(1.5, abs=0.02)
    assert "encoder_lr" not in default("demo_finetune", "network=unet")
    assert "encoder_lr" not in default("demo_finetune", "encoder_lr=0")
    assert "encoder_lr" not in default("demo_pretrain")
    with pytest.raises(InputError, match="encoder_lr: found a setting without effect on the network unet"):
        space("encoder_lr=0.1..1", base=[*WORDS, "network=unet"])
    both = [read_settings(Finetune, "demo_finetune", [*WORDS, word]) for word in ("lr=0.01", "lr=0.1")]
    assert default_space(both)["lr"] == "0.0018..0.56"


def test_what_would_end_every_trial_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = [{"id": f"c{i}", "image": f"{i}.nii", "label": f"l{i}.nii"} for i in range(4)]
    split = {"labels": {"0": "background", "1": "organ"}, "training": cases[:3], "test": cases[3:]}
    Path("split.json").write_text(json.dumps(split))
    for words, found in (
        ([], "split.json: validation: found no cases, expected at least one, to choose by"),
        (["--trials", "0"], "--trials: trials: found 0, expected at least 1"),
        (["labelled=9"], "split.json: labelled: found 9, expected 1 to 3, the cases in training"),
        (["split=other.json"], "other.json: split: found no such file, expected a split"),
        (["out=a"], "command line: out: found a setting of single runs"),
        (["--at", "labelled=6"], "--at: recipe: found demo_finetune, expected a study"),
        (["lrr=1"], "lrr: found an unknown setting, expected 'lr'?"),
    ):
        assert main(["tune", "demo_finetune", "split=split.json", "labelled=2", *words, "--out", "out"]) == 2
        assert found in capsys.readouterr().err
    assert main(["tune", "demo_finetun", "--out", "out"]) == 2
    assert "expected 'demo_finetune'?" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["tune", "demo_finetune", "split=split.json", "--out", "out"]) == 2
    assert "medssl tune: packages: found no optuna, expected it: pip install -e '.[tune]'" in capsys.readouterr().err
    assert not Path("out").exists()
    split |= {"validation": cases[2:3], "training": cases[:2]}
    Path("split.json").write_text(json.dumps(split))
    settings = read_settings(Finetune, "demo_finetune", ["split=split.json", "labelled=2"])
    with pytest.raises(InputError, match="space: label_smoothing: found a setting without effect on segmentation"):
        check_data(settings, {"label_smoothing": Range(0, 0.5, whole=False)})
    assert [is_study(name) for name in ("phantom", "demo_finetune", "hippocampus")] == [True, False, True]
