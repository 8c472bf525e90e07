"""One style for all figures, drawn as the same bytes each time."""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, ParamSpec

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette (jfly.uni-koeln.de/color): distinct with the common colour vision deficiencies.
BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
INK, GRAY, LIGHT = "#1b1f24", "#6b7280", "#d5dae1"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "report",
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "font.family": ["sans-serif"],  # the SVG names it after the font, as the fallback
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # a class may be named "$a$"
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "savefig.dpi": 110,
    "figure.dpi": 100,
}
_P = ParamSpec("_P")


class _Saved(NamedTuple):
    width_in: float
    height_in: float
    svg: str
    png: bytes


class Drawing:
    """A figure as an SVG document and as a PNG, without dates and versions, drawn on first use.

    draw: returns the figure, the same each time.
    """

    def __init__(self, draw: Callable[[], Figure]) -> None:
        self._draw = draw

    @cached_property
    def saved(self) -> _Saved:
        with mpl.rc_context(), warnings.catch_warnings():
            # A name in a script that the font lacks shows boxes in the PNG; the SVG leaves it to the reader's fonts.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            # A user's matplotlibrc would change the bytes.
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            figure = self._draw()
            # Laid out once: doing it again for each format would double the time.
            engine = figure.get_layout_engine()
            assert engine is not None
            engine.execute(figure)
            figure.set_layout_engine(None)
            svg, png = io.BytesIO(), io.BytesIO()
            figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
            figure.savefig(png, format="png", metadata={"Software": None})
        width_in, height_in = map(float, figure.get_size_inches())
        return _Saved(width_in, height_in, svg.getvalue().decode("utf-8"), png.getvalue())


def drawn(make: Callable[_P, Figure]) -> Callable[_P, Drawing]:
    """Decorator: ``make`` draws a figure in the report's style, without changing matplotlib's global state."""

    @functools.wraps(make)
    def drawing(*args: _P.args, **kwargs: _P.kwargs) -> Drawing:
        return Drawing(functools.partial(make, *args, **kwargs))

    return drawing


def blank(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """A new figure of that size in inches with one pair of axes."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.add_subplot()


def grid(
    number: int, across: int, width_in: tuple[float, float, float], height_in: tuple[float, float], share: str = ""
) -> tuple[Figure, list[Axes]]:
    """A new figure of ``number`` panels, ``across`` in a row. width_in: minimum, base, per column; height_in: base, per
    row; share: the axes that all panels share, "", "y" or "xy"."""
    (least, left, each), (base, row), down = width_in, height_in, -(-number // across)
    figure = Figure(figsize=(max(least, left + each * across), base + row * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharex="x" in share, sharey="y" in share)
    places: list[Axes] = axes.ravel().tolist()
    for one in places[number:]:
        one.set_axis_off()
    return figure, places[:number]


def legend(figure: Figure, handles: Sequence[Artist] | None = None, columns: int = 2) -> None:
    """Draw a legend above the axes: of ``handles``, or of everything drawn with a label."""
    if handles is None:
        handles = [handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]]
    if handles:
        figure.legend(handles=list(handles), loc="outside upper left", ncols=columns)


def inline_svg(svg: str, name: str) -> str:
    """The ``<svg>`` element alone, its ids made unique on a page that holds several figures; it scales to its box."""
    body = svg[svg.index("<svg") :]
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\"\)]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{name}-", body)
    return re.sub(
        r'<svg ([^>]*?)width="[^"]+" height="[^"]+"|<svg height="[^"]+" width="[^"]+"', r"<svg \1", body, count=1
    )


def short(text: str, limit: int = 18) -> str:
    """``text`` cut in the middle to ``limit`` characters; characters invalid in XML become question marks."""
    clean = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff￾￿]", "?", text)
    if len(clean) <= limit:
        return clean
    head = limit // 2
    return f"{clean[:head]}…{clean[len(clean) - (limit - 1 - head) :]}"
