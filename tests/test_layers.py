"""Imports point one way: scripts and medssl -> networks, transforms -> the libraries that each may know."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "networks": {"networks", "monai", "torch", "einops", "safetensors"},
    "transforms": {"transforms", "monai", "torch", "numpy", "einops"},
    "json_splits": {"medssl"},
}
SPLITTING = ["divide.py", "patients.py", "compose.py", "split_command.py", "slice_command.py"]
CONFIG = [f"config/{path.name}" for path in sorted((ROOT / "medssl/config").glob("*.py"))]
TORCH_FREE = [
    "problems.py",
    "splits.py",
    "recipes.py",
    "cli.py",
    "stopping.py",
    "launch.py",
    "methods/__init__.py",
    "tasks/__init__.py",
    *[f"study/{name}.py" for name in ("schema", "axes", "plan", "checks", "command")],
    "prediction/__init__.py",
    "prediction/command.py",
    *[f"tuning/{name}.py" for name in ("space", "command")],
    "web/__init__.py",
    "web/command.py",
    "web/limits.py",
    *CONFIG,
    *SPLITTING,
]


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """The first names of all modules that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        strangers = imports(path) - MAY_IMPORT[package] - sys.stdlib_module_names
        assert not strangers, f"{path} imports {strangers}"


def test_nothing_imports_the_scripts() -> None:
    for path in [p for folder in ("medssl", "networks", "transforms") for p in (ROOT / folder).rglob("*.py")]:
        assert not imports(path) & {"ssl_pretrain", "ssl_finetune", "tests", "benchmarks"}, path


@pytest.mark.parametrize("name", TORCH_FREE)
def test_settings_and_splits_need_no_torch(name: str) -> None:
    assert not imports(ROOT / "medssl" / name, top_level_only=True) & {"torch", "monai", "numpy", "h5py", "nibabel"}
