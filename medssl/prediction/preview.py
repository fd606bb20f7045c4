"""The picture of a prediction, for a person to look at: an image under its labels, or beside what was said of it.

Volumes are shown by axial slices in the radiological convention, at the proportions that they have in mm, whatever way
the file stores them. No display is needed.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from PIL import Image

from medssl.prediction.model import Model
from medssl.prediction.predict import Prediction, Segmented, Told
from medssl.readers import Volume
from medssl.reports.canvas import PALETTE, literal, new_figure, png
from medssl.reports.case_pictures import case_picture
from medssl.tasks.shown import pictures, slices_of

FILLED, OUTLINED = 0.4, 1.0  # shares of a class's colour inside and at the border
MOST = 20  # classes that a legend or a chart has room for
RESEARCH = "Research use only, not a medical device."
Pixels = npt.NDArray[Any]


def colour_of(k: int) -> str:
    """The colour of a class; those beyond the palette are darker each time around, none is black."""
    turn, place = divmod(k - 1, len(PALETTE))
    parts = [round(255 * part * 0.75 ** (turn % 4)) for part in to_rgb(PALETTE[place])]
    return "#{:02X}{:02X}{:02X}".format(*parts)


def preview(models: Sequence[Model], prediction: Prediction) -> bytes:
    """Draw the PNG of a prediction."""
    if isinstance(prediction.found, Segmented):
        return segmentation_preview(models[0], prediction, prediction.found)
    return whole_preview(models[0], prediction, prediction.found)


def segmentation_preview(model: Model, prediction: Prediction, found: Segmented) -> bytes:
    """Draw up to three slices, those with most labels, without and with their classes as colours."""
    image, labels, spacing = upright(prediction.volume, found.labels)
    volume = labels.ndim == 3
    weights = np.count_nonzero(labels, axis=(0, 1)) if volume else None
    slices = slices_of(labels.shape[2], weights) if volume else [0]
    aspect = spacing[1] / spacing[0] if volume else spacing[0] / spacing[1]
    height, width = (labels.shape[1], labels.shape[0]) if volume else labels.shape
    tall = min(2.5, max(0.3, height * aspect / width))
    figure = new_figure(2.9 * len(slices) + 0.2, 2.9 * tall * 2 + 0.8) if volume else new_figure(8.4, 4.1 * tall + 0.7)
    axes = figure.subplots(2 if volume else 1, len(slices) if volume else 2, squeeze=False)
    low, high = scale_of(image)
    for column, k in enumerate(slices):
        grey, classes = plane(image, k, low, high), labels[::-1, ::-1, k].T if volume else labels
        pair = (axes[0, column], axes[1, column]) if volume else (axes[0, 0], axes[0, 1])
        _show(pair[0], grey, aspect, f"slice {k}" if volume else "")
        _show(pair[1], overlaid(grey, classes), aspect, "")
    present = [k for k in sorted(model.labels) if k and found.voxels[k]]
    handles = [Patch(color=colour_of(k), label=literal(model.labels[k])) for k in present[:MOST]]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=9, frameon=False)
    told = "" if handles else ", nothing was found"
    sides = " Radiological convention: the patient's right is on the left." if volume else ""
    figure.suptitle(literal(f"{prediction.case.id}{told}. {RESEARCH}{sides}"), fontsize=8)
    return png(figure, dark=True)


def whole_preview(model: Model, prediction: Prediction, found: Told) -> bytes:
    """Draw the crop that was looked at, where the output comes from, and the classes' probabilities or the number."""
    with Image.open(io.BytesIO(saliency_picture(found, prediction))) as opened:
        looked = np.asarray(opened)
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _show(left, looked, 1.0, "where the output is sensitive" if found.saliency else "")
    if found.probabilities:
        bars(right, model.labels, found)
    else:
        right.axis("off")
        right.text(0.5, 0.6, literal(model.target), ha="center", va="center", fontsize=14, wrap=True)
        right.text(0.5, 0.45, f"{found.predicted:.5g}", ha="center", va="center", fontsize=24)
    figure.suptitle(literal(f"{prediction.case.id}. {RESEARCH}"), fontsize=8)
    return png(figure, dark=True)


def bars(ax: Axes, labels: Mapping[int, str], found: Told) -> None:
    """Draw the probabilities of the likeliest classes, the highest on top."""
    order = sorted(labels, key=lambda k: -found.probabilities[k])[:MOST]
    shares = [found.probabilities[k] for k in order]
    colours = [PALETTE[0] if k == found.predicted else PALETTE[1] for k in order]
    ax.barh(range(len(order)), shares, color=colours)
    ax.set(xlim=(0, 1.15), xlabel=f"probability{'' if found.calibrated else ', not calibrated'}")
    ax.set_yticks(range(len(order)), [literal(labels[k]) for k in order])
    ax.invert_yaxis()
    for place, share in enumerate(shares):
        ax.text(share + 0.01, place, f"{share:.3f}", va="center", fontsize=9)


def saliency_picture(found: Told, prediction: Prediction) -> bytes:
    """Draw the crop alone and under its saliency; of a volume by its most salient slices."""
    arrays = {f"{name}_0": np.asarray(value) for name, value in pictures(found.crop, found.saliency).items()}
    return case_picture(arrays, 0)


def upright(volume: Volume, labels: Pixels) -> tuple[Pixels, Pixels, list[float]]:
    """Image (c, *space) and labels (*space) with volumes' axes in RAS order, as views, and their spacing in mm."""
    from nibabel import orientations

    spacing = np.linalg.norm(volume.affine[:3, : labels.ndim], axis=0)
    if labels.ndim == 2:
        return volume.array, labels, spacing.tolist()
    turn: Any = orientations  # which has no types
    change = turn.io_orientation(volume.affine)
    turned = turn.apply_orientation(volume.array[0], change)[None]
    order = np.argsort(change[:, 0])
    return turned, turn.apply_orientation(labels, change), spacing[order].tolist()


def scale_of(image: Pixels) -> tuple[float, float]:
    """The stored values shown as black and white: nearly all of the image's."""
    low, high = np.percentile(image[0, ::2, ::2] if image.ndim == 3 else image[0, ::3, ::3, ::3], [0.5, 99.5])
    return float(low), float(max(high, low + 1e-6))


def plane(image: Pixels, k: int, low: float, high: float) -> Pixels:
    """An axial slice, anterior up and the patient's right on the left, or a 2D image, as colours (h, w, 3) in 0..1."""
    if image.ndim == 4:
        picture = np.repeat(image[0, ::-1, ::-1, k].T[..., None], 3, 2)
    else:
        picture = np.moveaxis(image, 0, -1) if len(image) == 3 else np.repeat(image[0, ..., None], 3, 2)
    grey: Pixels = np.clip((picture.astype(np.float32) - low) / (high - low), 0, 1)
    return grey


def overlaid(grey: Pixels, classes: Pixels) -> Pixels:
    """Lay classes (h, w) over an image (h, w, 3): filled lightly, their borders strongly."""
    colours = np.array([(0, 0, 0)] + [to_rgb(colour_of(k)) for k in range(1, int(classes.max()) + 1)])
    border = np.zeros(classes.shape, bool)
    for axis in (0, 1):
        differs = np.diff(classes, axis=axis) != 0
        border |= np.pad(differs, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
        border |= np.pad(differs, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
    share = np.where(classes > 0, np.where(border, OUTLINED, FILLED), 0.0)[..., None]
    mixed: Pixels = (1 - share) * grey + share * colours[classes]
    return mixed


def _show(ax: Axes, picture: Pixels, aspect: float, title: str) -> None:
    ax.imshow(picture, interpolation="nearest", aspect=aspect)
    ax.set_title(title, fontsize=9)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
