"""The layout of the Hugging Face hub: config.json, model.safetensors, a model card; nothing is sent anywhere.

https://huggingface.co/docs/hub/model-cards
"""

import json
from pathlib import Path
from typing import Any

from medssl.exports.card import front_matter, model_card
from medssl.exports.carried import SCRIPTS, copied, write_scripts
from medssl.exports.constructors import Constructor, constructor_of
from medssl.exports.source import Source
from medssl.exports.weights import FILE, notes, write_file


def write(source: Source, folder: Path) -> list[str]:
    """Write the folder; gives how to load it."""
    constructor = constructor_of(source)
    write_file(source, constructor, folder / FILE)
    target = copied(constructor.target) if constructor.ours else constructor.target
    config: dict[str, Any] = {"architectures": [target.rpartition(".")[2]], "library_name": "monai"}
    config |= {"constructor": target, "arguments": constructor.arguments} | source.description
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_scripts(folder, [constructor.target] if constructor.ours else [])
    lines = loading(source, constructor)
    card = front_matter(source) + model_card(source, ["```python", *lines, "```"])
    (folder / "README.md").write_text(card, encoding="utf-8")
    return lines


def loading(source: Source, constructor: Constructor) -> list[str]:
    """Python that loads the network by its config, in the folder."""
    module, _, name = constructor.target.rpartition(".")
    module = copied(module) if constructor.ours else module
    where = [f"# in this folder, or with it in sys.path: {SCRIPTS}/ makes the network"] if constructor.ours else []
    return [
        "import json",
        f"from {module} import {name}",
        "from safetensors.torch import load_file",
        *where,
        f'network = {name}(**json.load(open("config.json"))["arguments"]).eval()',
        f'network.load_state_dict(load_file("{FILE}"), strict=True)',
        *([] if constructor.ours else notes(source, constructor)),
    ]
