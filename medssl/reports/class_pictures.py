"""Pictures of a classification: the confusion matrix, and cases with what was said of them. PNG bytes.

Axis letters: k classes, of the truth down and of the prediction across.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap

from medssl.reports.canvas import DARK, LIGHT, PALETTE, literal, new_figure, png

COLUMNS = 4  # pictures in a row
LONGEST = 26  # characters of a name under a picture


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
    shown = [literal(short(name)) for name in names]
    ax.set_xticks(range(side), shown, rotation=35 if tilted else 0, ha="right" if tilted else "center")
    ax.set_yticks(range(side), shown)
    ax.set_xlabel("predicted")
    ax.set_ylabel("truth")
    return png(figure, dark)


def cases_figure(arrays: Mapping[str, Any], names: Sequence[str]) -> bytes:
    """Draw the cases of predictions.npz: image_k (c, *spatial) with truth, prediction and their probabilities.

    A volume is shown by its middle axial slice in the radiological convention, a 2D image as it is; channel 0.
    """
    return tiles_figure(arrays, lambda k: _caption(arrays, k, names))


def tiles_figure(arrays: Mapping[str, Any], caption: Callable[[int], str]) -> bytes:
    """Draw image_k of an .npz in rows, each under its caption."""
    count = sum(name.startswith("image_") for name in arrays)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    pictures = [_axial(np.asarray(arrays[f"image_{k}"], np.float32)[0]) for k in range(count)]
    tall = min(1.6, max(picture.shape[0] / picture.shape[1] for picture in pictures))
    figure = new_figure(2.5 * columns, (2.4 * tall + 0.85) * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for k, (ax, picture) in enumerate(zip(axes, pictures, strict=False)):
        low, high = np.percentile(picture, [0.5, 99.5])
        ax.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
        ax.set_title(caption(k), fontsize=8, loc="left")
    return png(figure, dark=True)


def _caption(arrays: Mapping[str, Any], k: int, names: Sequence[str]) -> str:
    truth, predicted = int(arrays[f"truth_{k}"]), int(arrays[f"predicted_{k}"])
    probabilities: npt.NDArray[np.float64] = np.asarray(arrays[f"probabilities_{k}"])
    lines = [short(str(arrays[f"name_{k}"])), f"is {short(names[truth])}: {probabilities[truth]:.1%}"]
    if predicted != truth:
        lines.append(f"said {short(names[predicted])}: {probabilities[predicted]:.1%}")
    return "\n".join(map(literal, lines))


def _axial(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A 2D image as it is; of a volume (x, y, z) the middle slice, anterior up, the patient's right on the left."""
    return image if image.ndim == 2 else image[::-1, ::-1, image.shape[2] // 2].T


def short(name: str) -> str:
    """A name that fits over a picture."""
    return name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."
