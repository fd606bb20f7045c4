"""What the sources never do: unpickle, run text as code, call a shell, unpack archives, or trust a name in the data."""

import ast
import configparser
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from medssl.problems import InputError
from medssl.splits import is_name, read_split

ROOT = Path(__file__).parents[1]
SOURCES = ["medssl", "networks", "transforms", "benchmarks", "json_splits", "ssl_pretrain.py", "ssl_finetune.py"]
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml", "jsonpickle", "pandas"}
ALLOWED = {"pickle.UnpicklingError"}  # to catch what torch raises
FORBIDDEN = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "tempfile.mktemp", "shutil.unpack_archive"),
    *("numpy.fromregex", "numpy.lib.format.read_array", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"),
    *("tarfile.open", "tarfile.TarFile", "zipfile.ZipFile", "monai.bundle.ConfigParser", "monai.auto3dseg.algo_from_pickle"),
    *("torch.serialization.add_safe_globals", "torch.utils.data.datapipes", "scipy.io.loadmat", "torch.export.load"),
}
METHODS = {"extractall", "extract", "allow_pickle_load", "set_executable"}  # whatever they are of
EXCEPT = {
    ("medssl/prediction/inputs.py", "zipfile.ZipFile"),  # members are named by number, bytes counted as they come
    ("medssl/web/work.py", "zipfile.ZipFile"),  # writes one
}
NEEDED = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}  # a literal in the call


def full_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                names[one.asname or one.name.split(".")[0]] = one.name if one.asname else one.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return names


def findings(source: str) -> Iterator[str]:
    """What a source does that none may."""
    tree = ast.parse(source)
    names = full_names(tree)

    def named(node: ast.AST) -> str:
        head, dot, rest = ast.unparse(node).partition(".")
        return names.get(head, head) + dot + rest

    excused = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and named(node) in ALLOWED}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in excused:
            name = named(node)
            if name in FORBIDDEN or (name.split(".")[0] in MODULES and name not in ALLOWED):
                yield name
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in MODULES:
            yield str(node.module)
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield f".{node.attr}"
        if isinstance(node, ast.Call):
            given = {word.arg: word.value for word in node.keywords}
            name = named(node.func)
            if name in NEEDED and not is_literal(given.get(NEEDED[name][0]), NEEDED[name][1]):
                yield f"{name} without {NEEDED[name][0]}={NEEDED[name][1]}"
            if not is_literal(given.get("shell", ast.Constant(False)), False):
                yield f"{name} with a shell"
            if not is_literal(given.get("allow_pickle", ast.Constant(False)), False):
                yield f"{name} with allow_pickle"


def is_literal(node: ast.expr | None, value: bool) -> bool:
    """Whether it is this constant itself."""
    return isinstance(node, ast.Constant) and node.value is value


def sources() -> list[Path]:
    """All that a user may run."""
    found = [file for name in SOURCES for file in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))]
    assert len(found) > 100
    return sorted(found)


def test_no_source_does_what_none_may() -> None:
    found = {(path.relative_to(ROOT).as_posix(), what) for path in sources() for what in findings(path.read_text())}
    assert found == EXCEPT


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(x)",
        "import pickle as p\np.load(x)",
        "from pickle import Unpickler\nUnpickler(x)",
        "from torch import load\nload(x)",
        "import torch\ntorch.load(x, weights_only=flag)",
        "import torch as t\nread = t.load\nt.load(x, weights_only=False)",
        "import numpy as np\nnp.load(x)",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "import numpy as np\nnp.savez(x, allow_pickle=True)",
        "import joblib\njoblib.load(x)",
        "import yaml\nyaml.load(x)",
        "from monai.bundle import ConfigParser\nConfigParser(x)",
        "eval(x)",
        "run = exec",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "import subprocess\nsubprocess.Popen(x, shell=flag)",
        "import os\nos.system(x)",
        "import tempfile\ntempfile.mktemp()",
        "archive.extractall(x)",
        "from zipfile import ZipFile\nZipFile(x)",
    ],
)
def test_the_reading_of_sources_finds(source: str) -> None:
    assert list(findings(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(x, weights_only=True)",
        "import numpy as np\nnp.load(x, allow_pickle=False)",
        "import pickle\ntry:\n    f()\nexcept pickle.UnpicklingError:\n    pass",
        "model.eval()",
        "import subprocess\nsubprocess.run([x])",
        "from zipfile import BadZipFile",
    ],
)
def test_the_reading_of_sources_lets_pass(source: str) -> None:
    assert list(findings(source)) == []


# ---- names in the data


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/b", "", " ", "line\nbreak", "zero\0", "x" * 300, "\u202egpj.exe"])
def test_a_name_that_could_lead_elsewhere_is_none(name: str, tmp_path: Path) -> None:
    """Ids, patients and the split's name become parts of file names."""
    assert not is_name(name)
    case = {"id": "a", "patient": "p", "image": "a.nii.gz"}
    for content in ({"name": name}, {"training": [case | {"id": name}]}, {"training": [case | {"patient": name}]}):
        assert refused(tmp_path, {"training": [case]} | content)


@pytest.mark.parametrize("path", ["../a.nii.gz", "/etc/passwd", "b/../../a.nii.gz", "a\0b", ".", ""])
def test_a_path_that_leads_out_of_the_data_is_refused(path: str, tmp_path: Path) -> None:
    for key in ("image", "mask", "label"):
        case: dict[str, Any] = {"id": "a", "image": "a.nii.gz", key: path}
        assert refused(tmp_path, {"training": [case], "labels": {"0": "background", "1": "x"}})


def refused(folder: Path, content: dict[str, Any]) -> bool:
    """Whether a split is refused."""
    (folder / "split.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        read_split(folder / "split.json")
    return True


def test_names_of_classes_are_in_no_file_name() -> None:
    """Files that runs, reports and slices write have names of the code's own, or ids that `is_name` has passed."""
    data = re.compile(r"\b(patient|labels?|class_name|classes|description|modality)\b")
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".path", "write_atomically", "atomic_path")):
                assert not data.search(ast.unparse(node.args[0]) if node.args else ""), f"{path}: {ast.unparse(node)}"


# ---- what is installed


def test_dependencies_have_least_versions_which_the_tested_ones_reach() -> None:
    """Those of setup.cfg are the first that carry the fixes that docs/security.md names; constraints.txt pins all."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = dict(line.split(">=") for line in setup["options"]["install_requires"].split())
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    named = dict(re.findall(r"^\| (\S+) \| (\S+) \|", (ROOT / "docs/security.md").read_text(), re.MULTILINE))
    for package, least in wanted.items():
        assert numbers(pinned[package]) >= numbers(least), package
        assert numbers(version(package)) >= numbers(least), package
        assert package not in named or named[package] == least
    assert {"torch", "monai", "pillow", "pydicom"} <= named.keys()


def numbers(text: str) -> tuple[int, ...]:
    """A version to compare."""
    return tuple(map(int, re.findall(r"\d+", text.split("+", maxsplit=1)[0])))
