"""Charts in the browser: a chart in, Bokeh's description of it as JSON out, which its script, beside the pages, draws.

Texts are plain ones: Bokeh would fetch what sets formulae from elsewhere.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from bokeh.core.properties import value
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.layouts import gridplot
from bokeh.models import BoxZoomTool, HoverTool, LinearColorMapper, LogColorMapper, PlainText
from bokeh.models.annotations import BoxAnnotation, ColorBar, Legend, LegendItem, Title
from bokeh.palettes import Viridis256
from bokeh.plotting import figure as new_figure

from jobs.report.charts import Bars, Chart, Density, Lines, Panels, SkyMap
from jobs.report.printed import COLOURS, DASHES, GREY
from jobs.report.projection import outlines

_HEIGHT, _LEGEND, _PANEL = 420, 22, (250, 190)
#: The wheel scrolls the page until it is switched to zooming.
_TOOLS = "box_zoom,pan,wheel_zoom,reset,save"


def item(chart: Chart) -> dict[str, Any]:
    """Return what Bokeh's script draws of a chart, into the element ``chart-NAME``."""
    found: dict[str, Any] = dict(json_item(plot(chart), ID(f"chart-{chart.name}")))
    return found


@singledispatch
def plot(chart: Chart) -> Any:
    """Return a chart as a model of Bokeh."""
    raise TypeError(f"no plot of {type(chart).__name__}")


def _new(x: str | None, y: str | None, **more: Any) -> Any:
    options = {"height": _HEIGHT, "sizing_mode": "stretch_width", "tools": _TOOLS, "toolbar_location": "above", **more}
    found: Any = new_figure(**options)
    found.toolbar.logo = None
    found.toolbar.active_drag = next(tool for tool in found.tools if isinstance(tool, BoxZoomTool))
    for axis, text in ((found.xaxis, x), (found.yaxis, y)):
        axis.axis_label = text if text is None else PlainText(text=text)
        axis.axis_label_text_font_style = "normal"
    return found


def _hover(renderer: Any, *told: tuple[str, str], **more: Any) -> HoverTool:
    return HoverTool(renderers=[renderer], tooltips=list(told), **more)


@plot.register
def _(chart: Density) -> Any:
    (left, right), (bottom, top) = chart.x.ends, chart.y.ends
    found = _new(chart.x.label, chart.y.label, x_range=(left, right), y_range=(bottom, top))
    mapper = LogColorMapper(
        palette=Viridis256, low=1, high=max(int(chart.counts.max(initial=1)), 2), nan_color="rgba(0, 0, 0, 0)"
    )
    shown = np.where(chart.counts > 0, chart.counts, np.nan).T.astype(np.float32)
    drawn = found.image([shown], x=left, y=bottom, dw=right - left, dh=top - bottom, color_mapper=mapper)
    found.add_layout(ColorBar(color_mapper=mapper, width=10, title="galaxies"), "right")
    found.add_tools(_hover(drawn, ("x", "$x{0.000}"), ("y", "$y{0.000}"), ("galaxies", "@image{0,0}")))
    found.grid.level = "underlay"
    return found


@plot.register
def _(chart: Bars) -> Any:
    return _bars(_new(chart.x.label, "galaxies"), chart)


def _bars(found: Any, chart: Bars) -> Any:
    source = {"left": chart.x.edges[:-1], "right": chart.x.edges[1:], "top": chart.counts}
    drawn = found.quad("left", "right", "top", bottom=0, source=source, fill_color=COLOURS[0], line_color="white")
    if chart.band:
        found.add_layout(BoxAnnotation(bottom=chart.band[0], top=chart.band[1], fill_color=GREY, fill_alpha=0.25))
    found.add_tools(_hover(drawn, ("from", "@left{0.000}"), ("to", "@right{0.000}"), ("galaxies", "@top{0,0}")))
    found.y_range.start = 0
    return found


@plot.register
def _(chart: Panels) -> Any:
    parts = []
    for part in chart.parts:
        small = _new(None, None, width=_PANEL[0], height=_PANEL[1], sizing_mode="fixed", toolbar_location=None)
        small.add_layout(Title(text=PlainText(text=part.title), text_font_style="normal"), "above")
        parts.append(_bars(small, part))
    return gridplot(parts, ncols=4, toolbar_location="above", toolbar_options={"logo": None})


@plot.register
def _(chart: Lines) -> Any:
    found = _new(chart.x, chart.y, height=_HEIGHT + _LEGEND * -(-len(chart.curves) // 2))
    if chart.half is not None:
        ends = np.array([0.0, 1.0])
        found.varea(ends, ends - chart.half, ends + chart.half, fill_color=GREY, fill_alpha=0.25)
        found.line(ends, ends, line_color="black", line_dash="dashed", line_width=0.8)
        found.x_range.start, found.x_range.end = found.y_range.start, found.y_range.end = 0, 1
    items = []
    for i, (label, (x, y)) in enumerate(chart.curves.items()):
        source = {"x": x, "y": y, "curve": [label] * len(x)}
        look = {"color": COLOURS[i % len(COLOURS)], "line_dash": DASHES[i // len(COLOURS) % len(DASHES)]}
        drawn = found.line("x", "y", source=source, line_width=2, muted_alpha=0.1, **look)
        items.append(LegendItem(label=value(label), renderers=[drawn]))
        found.add_tools(
            _hover(drawn, ("", "@curve"), ("x", "@x{0.000}"), ("y", "@y{0.0000}"), mode="mouse", visible=False)
        )
    found.add_layout(
        Legend(items=items, click_policy="hide", ncols=2, label_text_font_size="12px", border_line_alpha=0), "below"
    )
    return found


@plot.register
def _(chart: SkyMap) -> Any:
    plane = outlines(chart.order, chart.pixels)
    found = _new(None, None, match_aspect=True, sizing_mode="scale_width", width=760, height=420)
    found.axis.visible, found.grid.visible, found.outline_line_color = False, False, None
    grid = {"x": [x for x, _ in plane.grid], "y": [y for _, y in plane.grid]}
    found.multi_line("x", "y", source=grid, line_color=GREY, line_alpha=0.5, line_width=0.6)
    low, high = chart.limits
    mapper = (LogColorMapper if chart.log else LinearColorMapper)(palette=Viridis256, low=low, high=high)
    source = {"x": list(plane.x), "y": list(plane.y), "ra": plane.ra, "dec": plane.dec, "pixel": chart.pixels,
              "value": chart.values}  # fmt: skip
    drawn = found.patches(
        "x",
        "y",
        source=source,
        fill_color={"field": "value", "transform": mapper},
        line_color=None,
        hover_line_color="black",
    )
    found.text(
        *([mark[i] for mark in plane.marks] for i in range(3)), text_font_size="11px", text_color="#444444",
        text_align="center", text_baseline="middle",
        background_fill_color="white", background_fill_alpha=0.7,
    )  # fmt: skip
    found.add_layout(ColorBar(color_mapper=mapper, width=10), "right")
    told = (chart.value, "@value{0,0}" if chart.log else "@value{0.000}")
    where = ("ra, dec [deg]", "@ra{0.00}, @dec{0.00}"), ("pixel (nested)", "@pixel")
    found.add_tools(_hover(drawn, told, *where))
    return found
