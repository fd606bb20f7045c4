"""The canvas of all pictures: palette, light and dark paper, PNG bytes.

Every picture is its own matplotlib Figure on the Agg canvas, and colours are set on its parts, never in matplotlib's
global settings, so any thread may draw. The palette is Okabe and Ito's (2008), which stays apart for the colour-blind.
"""

import io

from matplotlib.figure import Figure
from matplotlib.text import Text

from medssl.problems import printable

# Bright ones first: they are drawn on grey images. Orange, sky blue, green, yellow, vermilion, purple, blue.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")
LIGHT = {"back": "#ffffff", "ink": "#22262b", "soft": "#dfe3e8"}
DARK = {"back": "#15181d", "ink": "#e6e8eb", "soft": "#343a43"}


def new_figure(width: float, height: float, fitted: bool = True) -> Figure:
    """Give an empty figure of so many inches; `fitted` arranges several axes, which takes time."""
    return Figure(figsize=(width, height), dpi=120, layout="compressed" if fitted else None)


def literal(text: str) -> str:
    """Give words as matplotlib shows them unchanged: no mathematics between dollars, no label that it hides."""
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def png(figure: Figure, dark: bool) -> bytes:
    """Paint the figure for light or dark paper and give its PNG."""
    paper = DARK if dark else LIGHT
    figure.set_facecolor(paper["back"])
    for ax in figure.axes:
        ax.set_facecolor(paper["back"])
        ax.tick_params(which="both", color=paper["soft"], labelcolor=paper["ink"], labelsize=8)
        for spine in ax.spines.values():
            spine.set_color(paper["soft"])
        ax.spines[["top", "right"]].set_visible(False)
        for line in [*ax.get_xgridlines(), *ax.get_ygridlines()]:
            line.set(color=paper["soft"], linewidth=0.6)
    for text in figure.findobj(Text):
        text.set_color(paper["ink"])
    data = io.BytesIO()
    figure.savefig(data, format="png", bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
    return data.getvalue()
