"""Pictures of images: the views of a crop, and predictions beside labels.

Volumes are (x, y, z) in RAS. Axial slices are shown in the radiological convention: anterior up, the patient's right
on the left of the picture. 2D images are shown as they are, row by column.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from medssl.reports.canvas import PALETTE, literal, new_figure, png

CONVENTION = "Axial slices in the radiological convention: anterior up, the patient's right on the left of the picture."
Pixels = npt.NDArray[Any]


def views_figure(views: Mapping[str, Pixels], slices: int = 5, colour: bool = False) -> bytes:
    """Draw crops and what a method made of them: views.npz, arrays (b, c, *space) by name, "image" first.

    Channel 0 is shown, or, of 2D images whose three channels are red, green and blue, their `colour`.

    3D: the first crop, a row for each array, columns are axial slices, numbered as in the image; of an array of another
    depth those at the same share of it. 2D: a row for each crop, a column for each array. All share the grey scale of
    their image.
    """
    if colour:
        pictures = {name.replace("_", " "): np.moveaxis(np.clip(array, 0, 1), 1, -1) for name, array in views.items()}
        rows = [[(array[k], (0.0, 1.0)) for array in pictures.values()] for k in range(len(pictures["image"]))]
        return _tiles(rows, [""] * len(rows), list(pictures))
    arrays = {name.replace("_", " "): np.asarray(array, np.float32)[:, 0] for name, array in views.items()}
    if arrays["image"].ndim == 4:
        scale, shares = _scale(arrays["image"][0]), np.linspace(0.12, 0.88, slices)
        depths = {name: (shares * (array.shape[-1] - 1)).astype(int) for name, array in arrays.items()}
        tiles = [[(_slice(array[0], depth), scale) for depth in depths[name]] for name, array in arrays.items()]
        return _tiles(tiles, list(arrays), [f"slice {depth}" for depth in depths["image"]])
    crops = range(len(arrays["image"]))
    tiles = [[(array[k], _scale(arrays["image"][k])) for array in arrays.values()] for k in crops]
    return _tiles(tiles, [""] * len(tiles), list(arrays))


def _tiles(tiles: Sequence[Sequence[tuple[Pixels, tuple[float, float]]]], rows: Sequence[str], columns: Sequence[str]) -> bytes:
    """Draw pictures, each with the two ends of its grey scale, in rows and columns with titles."""
    tall = min(1.6, tiles[0][0][0].shape[0] / tiles[0][0][0].shape[1])
    figure = new_figure(1.8 * len(columns) + 0.3, (1.8 * tall + 0.06) * len(rows) + 0.3)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, title, pictures in zip(axes, rows, tiles, strict=True):
        for ax, (picture, scale) in zip(line, pictures, strict=True):
            _grey(ax, picture, *scale)
        line[0].set_ylabel(title, fontsize=10)
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title, fontsize=9)
    return png(figure, dark=True)


def _scale(image: Pixels) -> tuple[float, float]:
    low, high = np.percentile(image, [0.5, 99.5])
    return float(low), float(high)


def prediction_figure(
    predictions: Mapping[str, Any], k: int, labels: Mapping[int, str], spacing: Sequence[float] | None = None, slices: int = 2
) -> bytes:
    """Draw case k of predictions.npz: label and prediction as contours, side by side, cut to the region of the objects.

    3D: the axial slices with most label, `slices` of them under each other. `labels` names the classes; `spacing` in mm
    gives pixels their shape.
    """
    image, label, predicted = _prediction(predictions, k)
    volume = image.ndim == 3
    tall, wide = (1, 0) if volume else (0, 1)  # the axes of the picture's rows and columns
    aspect = float(spacing[tall] / spacing[wide]) if spacing else 1.0
    height = 2.2 * min(1.6, image.shape[tall] * aspect / image.shape[wide])
    depths = _fullest(label if (label > 0).any() else predicted, slices if volume else 1)
    figure = new_figure(4.5, (height + 0.25) * len(depths) + 0.35)
    axes = figure.subplots(len(depths), 2, squeeze=False)
    low, high = np.percentile(image, [0.5, 99.5])
    shown: set[int] = set()
    for row, depth in zip(axes, depths, strict=True):
        for ax, array, name in zip(row, (label, predicted), ("label", "prediction"), strict=True):
            _grey(ax, _slice(image, depth), low, high, aspect)
            shown |= _contours(ax, _slice(array, depth))
            ax.set_title(f"{name}, slice {depth}" if volume else name, fontsize=9)
    handles = [Line2D([], [], label=literal(labels.get(index, f"class {index}")), **_line(index)) for index in sorted(shown)]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=9, frameon=False)
    return png(figure, dark=True)


def _prediction(predictions: Mapping[str, Any], k: int) -> tuple[Pixels, Pixels, Pixels]:
    """Image of channel 0, label and prediction of case k, cut in the plane to the objects and a margin."""
    image = np.asarray(predictions[f"image_{k}"], dtype=np.float32)[0]
    label, predicted = (np.asarray(predictions[f"{name}_{k}"]) for name in ("label", "prediction"))
    objects = (label > 0) | (predicted > 0)
    if objects.any():
        region = tuple(_region(objects, axis) for axis in (0, 1))
        image, label, predicted = image[region], label[region], predicted[region]
    return image, label, predicted


def _region(objects: Pixels, axis: int) -> slice:
    """The extent along an axis with a margin, at least a third of the image, so that small objects can be seen."""
    size = objects.shape[axis]
    found = np.flatnonzero(objects.any(axis=tuple(a for a in range(objects.ndim) if a != axis)))
    wanted = max(int(1.5 * (found[-1] - found[0] + 1)), size // 3, min(size, 32))
    start = min(max(0, (found[0] + found[-1] + 1 - wanted) // 2), max(0, size - wanted))
    return slice(int(start), int(start + wanted))


def _fullest(label: Pixels, count: int) -> list[int]:
    """The axial slices with most label, apart from each other by a quarter of the labelled depth, in order."""
    if label.ndim == 2:
        return [0]
    voxels = (label > 0).sum(axis=(0, 1)).astype(float)
    apart = max(1, int(np.count_nonzero(voxels)) // 4)
    chosen: list[int] = []
    for _ in range(count):
        depth = int(voxels.argmax())
        chosen.append(depth)
        voxels[max(0, depth - apart) : depth + apart + 1] = -1
    return sorted(chosen)


def _slice(array: Pixels, depth: int) -> Pixels:
    """A 2D image as it is; of a volume (x, y, z) in RAS the axial slice, anterior up, patient's right on the left."""
    return array if array.ndim == 2 else array[::-1, ::-1, depth].T


def _grey(ax: Axes, picture: Pixels, low: float, high: float, aspect: float = 1.0) -> None:
    ax.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest", aspect=aspect)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _contours(ax: Axes, label: Pixels) -> set[int]:
    classes = {int(index) for index in np.unique(label) if index != 0}
    for index in sorted(classes):
        # A margin closes the outline of an object that touches the border.
        inside = np.pad((label == index).astype(float), 1)
        rows, columns = (np.arange(-1, size + 1) for size in label.shape)
        line = _line(index)
        ax.contour(columns, rows, inside, [0.5], colors=[line["color"]], linestyles=[line["linestyle"]], linewidths=1.3)
    return classes


def _line(index: int) -> dict[str, Any]:
    """Colour of a class; a second round through the palette is dashed, a third dotted."""
    turn, position = divmod(index - 1, len(PALETTE))
    return {"color": PALETTE[position], "linestyle": ("solid", "dashed", "dotted")[turn % 3]}
