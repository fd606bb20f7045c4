"""Cases that were judged as a whole, each a card: the image, where the output is sensitive, and what was said of it.

The cards are drawn from the arrays of predictions.npz (medssl.tasks.shown); their words are text of the page, so that a
long name breaks instead of being cut. The colours are inferno's, which brighten evenly (perceptually uniform) and so stay
apart for the colour-blind and in print; a place without effect keeps the image's grey.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medssl.reports.page import card, folded, grid, heading, paragraph, picture
from medssl.reports.pictures import CONVENTION
from medssl.reports.segmentation import spacing_of
from medssl.runs import Run

SIDE = 320  # pixels of a picture's longer side
GAP = 4
STRONGEST = 0.65  # share of colour where the saliency is 1
HONEST = (
    "It shows where the output is sensitive, not why, and not that the answer is right: maps of untrained networks can look as "
    "convincing (Adebayo et al. 2018, Sanity Checks for Saliency Maps)."
)
SCALE = "From no effect to the strongest in each image: colours do not compare between images."
SLICES = "Slices are numbered as in the judged crop; where there is a map, they are those that it marks most."
HOW = {
    "grad_cam": "Colour: Grad-CAM, which places of the network's last feature map {raise_it}.",
    "occlusion": "Colour: occlusion, how far the predicted {what} falls when a patch is hidden behind the image's mean.",
}
TOKENS = "In a transformer every token has seen all others, so that Grad-CAM may point beside what decides; occlusion does not."
TITLES = {"worst": "Worst cases: {error} highest", "typical": "Typical cases", "best": "Best cases: {error} lowest"}
Pixels = npt.NDArray[Any]
Rgb = npt.NDArray[np.uint8]


def case_cards(
    run: Run,
    arrays: Mapping[str, Any],
    said: Callable[[int], Sequence[str]],
    error: str,
    what: str,
) -> str:
    """Give the groups of cases, the worst first and the others folded; nothing where there is no case.

    `said` gives the lines under case k; `error` names what they are ordered by, `what` the output whose saliency is shown.
    """
    count = sum(name.startswith("image_") for name in arrays)
    if not count:
        return ""
    groups: dict[str, list[str]] = {}
    for k in range(count):
        lines = [str(arrays[f"name_{k}"]), *said(k), *_fall(run, arrays, k)]
        one = card(case_picture(arrays, k, spacing_of(run)), _alt(arrays, k), lines)
        groups.setdefault(str(arrays.get(f"group_{k}", "worst")), []).append(one)
    shown = {TITLES[group].format(error=error): grid(cards, "cards") for group, cards in groups.items()}
    (title, worst), *others = shown.items()
    volume = np.asarray(arrays["image_0"]).ndim == 4
    notes = [*_legend(run, arrays, what), paragraph(f"{SLICES} {CONVENTION}" if volume else "", "quiet")]
    return "".join([heading(title), *notes, worst, *(folded(title, cards) for title, cards in others)])


def case_picture(arrays: Mapping[str, Any], k: int, spacing: Sequence[float] | None = None) -> bytes:
    """Draw case k: the image, beside it the image under its saliency; of a volume slices in a row, above their saliency."""
    image = np.asarray(arrays[f"image_{k}"], np.float32)
    saliency = arrays.get(f"saliency_{k}")
    volume = image.ndim == 4
    tall, wide = (1, 0) if volume else (0, 1)
    aspect = spacing[tall] / spacing[wide] if spacing else 1.0
    numbers = arrays.get(f"slices_{k}")
    rows: list[list[Rgb]] = [[], []]
    low, high = np.percentile(image, [0.5, 99.5])
    for place in range(image.shape[-1] if volume else 1):
        grey = np.clip((_plane(image[0], place) - low) / max(high - low, 1e-6), 0, 1)
        label = f"{int(numbers[place])}" if numbers is not None else ""
        rows[0].append(_tile(np.repeat(grey[..., None], 3, 2), aspect, label))
        if saliency is not None:
            rows[1].append(_tile(overlay(grey, _plane(saliency, place) / 255), aspect, label))
    strips = [_join(row, 1) for row in rows if row]
    return _png(_join(strips, 0 if volume else 1))


def overlay(grey: Pixels, shares: Pixels) -> Pixels:
    """Lay saliency (h, w) in 0..1 over a grey image (h, w) in 0..1 as colour (h, w, 3): the more, the less grey."""
    colours = matplotlib.colormaps["inferno"](0.25 + 0.7 * shares)[..., :3]
    alpha = STRONGEST * shares[..., None]
    blended: Pixels = (1 - alpha) * grey[..., None] + alpha * colours
    return blended


def _legend(run: Run, arrays: Mapping[str, Any], what: str) -> list[str]:
    """What the colours say and what not, and their scale."""
    if "saliency_0" not in arrays:
        return []
    kind = str(run.config.get("saliency", "grad_cam"))
    raise_it = "speak for the predicted class" if what == "class" else f"raise the predicted {what}"
    words = [HOW[kind].format(what=what, raise_it=raise_it), HONEST]
    words += [TOKENS] if kind == "grad_cam" and run.network.startswith("vit") else []
    ramp = _bytes(np.repeat(overlay(np.full((1, 320), 0.5), np.linspace(0, 1, 320)[None]), 12, 0))
    return [paragraph(" ".join(words)), picture(_png(ramp), "Scale of the saliency", SCALE)]


def _fall(run: Run, arrays: Mapping[str, Any], k: int) -> list[str]:
    """How strong a map is: of an occlusion the largest fall, of any that there is nothing in it."""
    peak = arrays.get(f"peak_{k}")
    if peak is None:
        return []
    if float(peak) <= 0:
        return ["no place speaks for it"]
    return [f"hiding a patch lowers it by {float(peak):.2g} at most"] if run.config.get("saliency") == "occlusion" else []


def _plane(array: Pixels, place: int) -> Pixels:
    """A 2D image as it is; of a volume (x, y, slices) a slice, anterior up, the patient's right on the left."""
    return array if array.ndim == 2 else array[::-1, ::-1, place].T


def _tile(rgb: Pixels, aspect: float, label: str) -> Rgb:
    """Bring a picture (h, w, 3) in 0..1 to SIDE pixels: enlarged it keeps its pixels, made smaller it is averaged."""
    height, width = rgb.shape[0] * aspect, rgb.shape[1]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    tile = Image.fromarray(_bytes(rgb)).resize(size, method)
    if label:
        font = ImageFont.load_default(SIDE // 8)  # a slice has a third of a card
        ImageDraw.Draw(tile).text((8, 5), label, fill="white", font=font, stroke_width=3, stroke_fill="black")
    return np.asarray(tile)


def _join(tiles: Sequence[Rgb], axis: int) -> Rgb:
    """Put pictures of one size in a row (axis 1) or under each other (axis 0), apart by a grey that any paper shows."""
    shape = list(tiles[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 128, np.uint8)
    return np.concatenate([part for tile in tiles for part in (gap, tile)][1:], axis)


def _bytes(rgb: Pixels) -> Rgb:
    return np.round(255 * rgb).astype(np.uint8)


def _png(rgb: Rgb) -> bytes:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "PNG", optimize=True)
    return data.getvalue()


def _alt(arrays: Mapping[str, Any], k: int) -> str:
    numbers = arrays.get(f"slices_{k}")
    slices = "" if numbers is None else f", axial slices {', '.join(str(int(number)) for number in numbers)}"
    return f"{arrays[f'name_{k}']}{slices}"
