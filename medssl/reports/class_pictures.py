"""The picture of a classification: the confusion matrix. PNG bytes.

Axis letters: k classes, of the truth down and of the prediction across.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from medssl.reports.canvas import DARK, LIGHT, PALETTE, literal, new_figure, png

LONGEST = 26  # characters of a class's name


def confusion_figure(counts: Sequence[Sequence[int]], names: Sequence[str], dark: bool = False) -> bytes:
    """Draw counts (k, k) and the share of each row that they are; a row is a true class."""
    table = np.asarray(counts, float)
    shares = np.divide(table, table.sum(1, keepdims=True), out=np.zeros_like(table), where=table.sum(1, keepdims=True) > 0)
    side = len(names)
    cell = 0.95 if side <= 6 else 0.62
    figure = new_figure(cell * side + 2.2, cell * side + 1.3)
    ax = figure.add_subplot()
    # text keeps the paper's ink, so a full cell is only as strong as the ink can be read on
    paper, full = (DARK["back"], PALETTE[6]) if dark else (LIGHT["back"], PALETTE[1])
    ax.imshow(shares, cmap=LinearSegmentedColormap.from_list("share", [paper, full]), vmin=0, vmax=1)
    for row, column in np.ndindex(side, side):
        share = f"\n{shares[row, column]:.0%}" if table[row].any() else "\n-"
        ax.text(column, row, f"{table[row, column]:g}{share}", ha="center", va="center", fontsize=10 if side <= 6 else 7)
    tilted = side > 3
    shown = [literal(_short(name)) for name in names]
    ax.set_xticks(range(side), shown, rotation=35 if tilted else 0, ha="right" if tilted else "center")
    ax.set_yticks(range(side), shown)
    ax.set_xlabel("predicted")
    ax.set_ylabel("truth")
    return png(figure, dark)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."
