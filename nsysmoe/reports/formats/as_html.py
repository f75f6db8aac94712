"""HTML: one file that opens offline in any browser and asks nobody for anything."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from nsysmoe.reports.escape import visible

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from nsysmoe.reports.document import Document

_CONFIG = {"displayModeBar": False, "responsive": True}


def render(document: Document) -> str:
    """Return the page; every text in it is escaped, the pictures carry their own plotly.js."""
    figures = [(picture, picture.draw()) for picture in document.pictures]
    drawn = [(picture, figure) for picture, figure in figures if figure is not None]
    return _template().render(
        document=document,
        pictures=[
            {"caption": picture.caption, "note": picture.note, "html": _drawn(figure, number)}
            for number, (picture, figure) in enumerate(drawn)
        ],
        missing=[picture.caption for picture, figure in figures if figure is None],
    )


def _drawn(figure: Figure, number: int) -> Markup:
    import plotly.io as pio  # noqa: PLC0415 - only pages with pictures pay for it

    # plotly writes "<", ">" and "/" in its JSON as escapes, so no text can end the script.
    drawn = pio.to_html(
        _in_order(figure.to_dict()),
        validate=False,
        full_html=False,
        include_plotlyjs=number == 0,
        config=_CONFIG,
        # Not by chance: the same input gives the same page.
        div_id=f"picture-{number + 1}",
    )
    return Markup(drawn)  # noqa: S704


def _in_order(value: Any) -> Any:
    """Return a figure's values with keys in order: plotly's own goes by the hashes of texts."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_in_order(one) for one in value]
    return value


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    source = resources.files("nsysmoe.reports.formats").joinpath("page.html.j2")
    return environment.from_string(source.read_text(encoding="utf-8"))
