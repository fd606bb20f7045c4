"""Does pre-training help with 6 labels? Every run behind the hippocampus table of docs/results.md, resumable.

    python benchmarks/hippocampus.py DATA [--out runs/hippocampus] [--jobs 1]

DATA is the Medical Segmentation Decathlon's Task04_Hippocampus. One pre-training; then every arm gets the same search
budget, four candidates on one draw of labels, judged on validation; then its best candidate runs on three draws with
three seeds and is judged once on the test subjects. Stop it at any time; started again it goes on.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNET = 'network={"name":"unet","channels":[16,32,64,128]}'
SEEDS = (1, 2, 3)


def candidates(arm: str) -> dict[str, list[str]]:
    """The four settings an arm may choose from: the rate of the U-Net, or those of decoder and encoder."""
    if arm == "unet":
        return {f"lr{rate}": [UNET, f"lr={rate}"] for rate in ("1e-3", "3e-3", "1e-2", "3e-2")}
    rates = [("3e-3", "0.1"), ("3e-3", "0.33"), ("1e-2", "0.03"), ("1e-2", "0.1")]
    return {f"lr{rate}_encoder{share}": [f"lr={rate}", f"encoder_lr={share}"] for rate, share in rates}


def train(script: str, recipe: str, words: list[str]) -> None:
    """Run a script to its end, or go on with it."""
    subprocess.run([sys.executable, script, recipe, *words, "--resume"], cwd=ROOT, check=True)


def summary(folder: Path) -> dict[str, float]:
    """The figures of a finished run."""
    read: dict[str, float] = json.loads((folder / "summary.json").read_text())
    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "hippocampus")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each with one thread")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    split = ROOT / "json_splits" / "hippocampus.json"  # where the recipes look
    if not split.exists():
        maker = ROOT / "json_splits" / "make_hippocampus.py"
        subprocess.run([sys.executable, str(maker), str(options.data), str(split)], check=True)
    shared = [f"data_root={options.data.resolve()}", f"store={out / 'store'}", "threads=1", "workers=0"]
    train("ssl_pretrain.py", "hippocampus_pretrain", [*shared, f"out={out / 'pretrain'}"])
    arms = {"pretrained": [f"encoder={out / 'pretrain'}"], "random": ["encoder=none"], "unet": ["encoder=none"]}
    searches = {(arm, name): out / "search" / arm / name for arm in arms for name in candidates(arm)}

    def search(arm: str, name: str) -> None:
        words = [f"out={searches[arm, name]}", "judge=validation", "seed=1", "draw=1"]
        train("ssl_finetune.py", "hippocampus_finetune", [*shared, *arms[arm], *candidates(arm)[name], *words])

    def final(arm: str, name: str, seed: int) -> None:
        words = [f"out={out / 'final' / f'{arm}_seed{seed}'}", "judge=test", f"seed={seed}", f"draw={seed}"]
        train("ssl_finetune.py", "hippocampus_finetune", [*shared, *arms[arm], *candidates(arm)[name], *words])

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda key: search(*key), searches))
        scores = {key: summary(folder)["val_dice"] for key, folder in searches.items()}
        chosen = {arm: max(candidates(arm), key=lambda name: scores[arm, name]) for arm in arms}
        print("\n".join(f"{arm} {name}: validation Dice {scores[arm, name]:.4f}" for arm, name in searches))
        print("chosen:", chosen)
        list(pool.map(lambda run: final(*run), [(arm, chosen[arm], seed) for seed in SEEDS for arm in arms]))
    subprocess.run([sys.executable, "-m", "medssl.cli", "report", str(out / "final")], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
