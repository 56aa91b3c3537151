"""SVG of matplotlib as a part of an HTML page: in its colours and fonts, with names of its own."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from spacy_slmre.evaluation.runs import EvaluationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Stand-ins, which the page's own colours replace in the SVG.
INK, SOFT, RULE, GROUND = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)", GROUND: "var(--ground)"}
_SERIES = "#05"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slmre",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
}


def series_color(place: int) -> str:
    """The stand-in for the colour of a system, which the page calls `--series-PLACE`."""
    return f"{_SERIES}{place:04x}"


def check_matplotlib() -> None:
    """Raise an error where plots cannot be drawn.

    Raises:
        EvaluationError: Matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise EvaluationError(
            "Plots are drawn with matplotlib, which is not installed: pip install 'spacy-slmre[report]'"
        ) from None


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Axes, Callable[[str], Markup]]]:
    """Axes of a figure of so many inches, and what makes its SVG under a label."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE), warnings.catch_warnings():
        # The page has glyphs that the font for measuring lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")

        def finish(label: str) -> Markup:
            stream = io.StringIO()
            figure.savefig(
                stream,
                format="svg",
                transparent=True,
                metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
            )
            return _for_page(stream.getvalue(), label)

        yield figure.subplots(), finish


def _for_page(svg: str, label: str) -> Markup:
    """The SVG as an element of an HTML page: names of its own, the page's colours and fonts."""
    prefix = f"p{hashlib.sha256(f'{label}{svg}'.encode()).hexdigest()[:8]}-"
    svg = svg[svg.index("<svg") :]
    # They would be of the whole page.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r'style="[^"]*"', lambda style: _own_style(style[0]), svg)
    return Markup(svg.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(label), 1))


def _own_style(style: str) -> str:
    style = re.sub("font-family:[^;]*;", "", style)
    style = re.sub(r"#0([1-4])(?:0\1){2}", lambda found: _VARIABLES[found[0]], style)
    return re.sub(f"{_SERIES}([0-9a-f]{{4}})", lambda found: f"var(--series-{int(found[1], 16)})", style)
