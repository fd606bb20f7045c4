"""Our own code that an export brings along, so that it runs where medssl is not installed.

`networks/` and `transforms/` know nothing of medssl. The files that a target needs are copied into the export's `scripts/`,
as MONAI's bundles call such a folder, and their imports are turned to it. No other line is changed.
"""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from medssl import __version__

SCRIPTS = "scripts"
IMPORT = re.compile(r'(?<=from )(?:networks|transforms)(?:\.\w+)*(?= import)|(?<=")(?:networks)(?:\.\w+)+(?=:)')
NOTICE = f'"""Copied from medssl {__version__}, Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0)."""\n'


def copied(target: str) -> str:
    """Where a function or class of ours lies in an export, by where it lies here."""
    return f"{SCRIPTS}.{target}"


def write_scripts(folder: Path, targets: Iterable[str]) -> None:
    """Copy the modules of our functions and classes, and all that those import of ours, into `folder`/scripts."""
    modules = closure({target.rpartition(".")[0] for target in targets})
    for module, path in modules.items():
        place = folder / SCRIPTS / Path(*module.split("."))
        place = place / "__init__.py" if path.name == "__init__.py" else place.with_suffix(".py")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(IMPORT.sub(lambda found: copied(found[0]), path.read_text(encoding="utf-8")), encoding="utf-8")
    if modules:
        (folder / SCRIPTS / "__init__.py").write_text(NOTICE, encoding="utf-8")


def closure(modules: set[str]) -> dict[str, Path]:
    """The files of modules, of their packages, and of all modules of ours that those import."""
    files: dict[str, Path] = {}
    waiting = set(modules)
    while waiting:
        module = waiting.pop()
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        files[module] = Path(spec.origin)
        wanted = {*IMPORT.findall(files[module].read_text(encoding="utf-8")), module.rpartition(".")[0] or module}
        waiting |= wanted - files.keys()
    return files
