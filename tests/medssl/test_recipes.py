"""Settings: every error at once, in one line each, without torch."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from medssl.config import Finetune, Pretrain
from medssl.config.listing import listed
from medssl.problems import InputError
from medssl.recipes import RECIPES, read_recipe, read_settings, recipe_names

RECIPE = {
    "split": "split.json",
    "steps": 10,
    "batch_size": 4,
    "validate_every": 5,
    "crop_size": [32, 32, 32],
    "intensity": "percentile",
    "network": {"name": "vit_tiny", "patch_size": [8, 8, 8]},
    "method": "recon_contrast",
    "lr": 1e-4,
}


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(RECIPE))
    return str(path)


def test_words_replace_what_the_recipe_says(recipe: str) -> None:
    settings = read_settings(Pretrain, recipe, ["network.layers=4", "method.temperature=0.1", "lr=2e-4", "out=runs/a"])
    assert (settings.network.layers, settings.network.hidden_size, settings.network.patch_size) == (4, 192, [8, 8, 8])  # type: ignore[union-attr]
    assert (settings.method.temperature, settings.lr, settings.out) == (0.1, 2e-4, Path("runs/a"))


def test_a_name_replaces_the_whole_table(recipe: str) -> None:
    settings = read_settings(Pretrain, recipe, ["network=vit_small", "crop_size=[32,32,32]"])
    assert (settings.network.hidden_size, settings.network.patch_size) == (384, [16, 16, 16])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["lr=0", "steps=-1"], ["lr: found 0", "steps: found -1"]),
        (["lr=0", "method.temprature=1"], ["lr: found 0", "temprature: found an unknown setting, expected 'temperature'?"]),
        (["batch_sise=3"], ["batch_sise: found an unknown setting, expected 'batch_size'?"]),
        (["network=vit_tny"], ["network: found vit_tny, expected 'vit_tiny'? One of vit_tiny"]),
        (["network.hiden_size=8"], ["hiden_size: found an unknown setting, expected 'hidden_size'?"]),
        (["crop_size=[30,32,32]"], ["crop_size: found [30, 32, 32], expected multiples of [8, 8, 8]"]),
        (["crop_size=[32,32]"], ["network.patch_size: found [8, 8, 8], expected one number for each axis of crop_size"]),
        (["network.heads=5"], ["heads"]),
        (["network=unet"], ["network: found unet, expected one of vit_tiny, vit_small"]),
        (["batch_size=3", "crops_per_case=2"], ["batch_size: found 3, expected a multiple of crops_per_case 2"]),
        (["batch_size=1"], ["batch_size: found 1, expected at least 2"]),
        (["intensity=window"], ["intensity.low: found nothing", "intensity.high: found nothing"]),
        (["intensity.low=70", "intensity.high=30"], ["low: found 70.0, expected less than high 30.0"]),
        (["method.temperature=0"], ["method.temperature: found 0, expected greater than 0"]),
        (["steps"], ["steps: found no '=', expected key=value"]),
        (["lr=fast"], ['lr: found "fast"']),
        (["unlabelled=1.5"], ["unlabelled: found 1.5, expected a whole number, or a share below 1"]),
        (["unlabelled=1.0"], ["unlabelled: found 1.0, expected 1 for one case, a share below 1, or null for all"]),
        (["unlabelled=0"], ["unlabelled: found 0, expected greater than 0"]),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(recipe: str, words: list[str], lines: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read_settings(Pretrain, recipe, words)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(lines)
    for line in lines:
        assert any(line in text for text in found), (line, found)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"lr": 1, "lr": 2}', "nul"])
def test_a_recipe_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match="expected a JSON object of settings"):
        read_recipe(path)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(InputError, match="'demo_pretrain'"):
        read_settings(Pretrain, "demo_pretrian", [])


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid_and_says_what_it_follows(name: str) -> None:
    kind = Pretrain if "method" in read_recipe(RECIPES / f"{name}.json") else Finetune
    settings = read_settings(kind, name, [])
    assert all([settings.follows, settings.expect, settings.takes])


@pytest.mark.parametrize("kind", [Pretrain, Finetune])
def test_help_lists_every_setting_that_a_recipe_may_have(kind: type[Pretrain] | type[Finetune]) -> None:
    """pydantic's JSON schema is the second implementation: of every table the same settings, and no other."""
    told = Counter(line.split()[0].rstrip(":") for line in listed(kind))
    schema = kind.model_json_schema()
    tables = [schema, *schema["$defs"].values()]
    assert not set(told) - {key for table in tables for key in table["properties"]} - headings(told)
    for table in tables:
        assert set(table["properties"]) - {"name"} <= set(told), table["title"]
    for name in schema["properties"]:
        assert told[name] >= 1


def headings(told: Iterable[str]) -> set[str]:
    """The lines that name a setting's kinds, such as `method=simclr,`."""
    return {word for word in told if "=" in word or word.endswith(".")}


def test_help_and_settings_errors_answer_without_torch(recipe: str) -> None:
    script = f"""
import sys
from medssl.cli import main, script
assert script("pretrain", [{recipe!r}, "lr=-1"]) == 2
assert main(["list"]) == 0
for call in (lambda: main(["--help"]), lambda: script("finetune", ["--help"]), lambda: main(["--version"])):
    try:
        call()
    except SystemExit as end:
        assert end.code == 0
assert not {{"torch", "monai", "h5py", "nibabel", "pydicom", "PIL"}} & set(sys.modules), "heavy imports"
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == 1
