"""Charts as SVG, by hand: two small functions need no plotting library, and the same result gives the same bytes."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.words import shown

PAPER, INK, FAINT, GRID = "#ffffff", "#1f2933", "#66727f", "#e3e8ed"
ACCENT, OTHERS = "#c2410c", "#9fb3c8"
LINE_COLOURS = ("#64748b", "#0f766e", "#6d28d9", "#a16207", "#be185d")
FONT = "font-family='system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif'"

# One panel: a title, what its bars count, and each bar's name and value.
Panel = tuple[str, str, Sequence[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class Course:
    """How a figure went over time, and a line laid through it, each as points of time and value."""

    name: str
    points: Sequence[tuple[float, float]]
    fit: Sequence[tuple[float, float]]


def bars(panels: Sequence[Panel], highlight: Collection[str]) -> str:
    """Panels of horizontal bars, two abreast, longest bar first; the names in `highlight` stand out."""
    width, row, head, label, margin = 490, 22, 58, 140, 20
    heights = [
        head + row * max(len(bars_of) for _, _, bars_of in panels[i : i + 2]) + margin for i in range(0, len(panels), 2)
    ]
    parts = []
    for index, (title, unit, values) in enumerate(panels):
        left, top = margin + width * (index % 2), margin + sum(heights[: index // 2])
        parts.append(_text(left, top + 14, title, size=15, weight=600))
        parts.append(_text(left, top + 33, unit, colour=FAINT))
        longest = max((value for _, value in values), default=1)
        for number, (name, value) in enumerate(sorted(values, key=lambda bar: -bar[1])):
            y = top + head - 14 + number * row
            length = (width - label - margin - 70) * value / longest
            stands_out = name in highlight
            colour, weight = (ACCENT, 600) if stands_out else (OTHERS, 400)
            parts.append(_text(left + label - 8, y + 12, name, anchor="end", weight=weight))
            parts.append(
                f"<rect x='{left + label}' y='{y}' width='{max(length, 1):.1f}' height='16' rx='2' fill='{colour}'/>"
            )
            parts.append(_text(left + label + length + 6, y + 12, shown(value), colour=FAINT))
    return _page(2 * margin + 2 * width, margin + sum(heights), parts)


def lines(
    title: str,
    x_title: str,
    y_title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    highlight: Collection[str],
) -> str:
    """Lines over two logarithmic axes, each with its name at its end."""
    left, top, width, height = 70, 70, 600, 340
    xs = [x for points in series.values() for x, _ in points] or [1.0]
    ys = [y for points in series.values() for _, y in points] or [1.0]
    x_ticks, y_ticks = _decades(min(xs), max(xs)), _ticks(min(ys), max(ys))

    def place_x(x: float) -> float:
        return left + width * _share(x, x_ticks[0], x_ticks[-1])

    def place_y(y: float) -> float:
        return top + height * (1 - _share(y, y_ticks[0], y_ticks[-1]))

    parts = [_text(left - 50, 28, title, size=15, weight=600), _text(left - 50, 50, y_title, colour=FAINT)]
    parts.append(_text(left + width / 2, top + height + 44, x_title, anchor="middle", colour=FAINT))
    for y in y_ticks:
        parts.append(_line((left, place_y(y)), (left + width, place_y(y)), GRID, 1))
        parts.append(_text(left - 8, place_y(y) + 4, f"{y:,g}", anchor="end", colour=FAINT))
    for x in x_ticks:
        parts.append(_line((place_x(x), top), (place_x(x), top + height), GRID, 1))
        parts.append(_text(place_x(x), top + height + 20, f"{x:,.0f}", anchor="middle", colour=FAINT))
    ends = []
    for (name, points), colour in zip(series.items(), _cycle(series, highlight), strict=True):
        placed = [(place_x(x), place_y(y)) for x, y in points]
        stroke = 3 if name in highlight else 2
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{stroke}'/>")
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{stroke + 1}' fill='{colour}'/>" for x, y in placed]
        ends.append((*placed[-1], name, colour))
    names = [_text(x + 10, y + 4, name, colour=colour, weight=600) for x, y, name, colour in _apart(ends)]
    parts += [f"<g stroke='{PAPER}' stroke-width='5'>", *names, "</g>", *names]  # paper around them, over the lines
    return _page(left + width + 150, top + height + 64, parts)


def courses(title: str, x_title: str, panels: Sequence[Course], marks: Sequence[float]) -> str:
    """Figures over the same time, one below the other, from zero up; `marks` are moments when something happened."""
    left, top, width, height, gap = 60, 60, 760, 130, 56
    last = max((x for panel in panels for x, _ in panel.points), default=1) or 1
    parts = [_text(left - 40, 28, title, size=15, weight=600)]
    for number, panel in enumerate(panels):
        bottom = top + number * (height + gap) + height
        highest = 1.15 * max((y for _, y in panel.points), default=0) or 1

        def place(point: tuple[float, float], bottom: float = bottom, highest: float = highest) -> tuple[float, float]:
            return left + width * point[0] / last, bottom - height * point[1] / highest

        parts.append(_text(left - 40, bottom - height - 10, panel.name, weight=600))
        parts += [_line((place((at, 0))[0], bottom - height), (place((at, 0))[0], bottom), GRID, 1) for at in marks]
        for share in (0, 0.5, 1):
            y = place((0, share * highest / 1.15))[1]
            parts.append(_line((left, y), (left + width, y), GRID, 1))
            parts.append(_text(left - 8, y + 4, shown(share * highest / 1.15), anchor="end", colour=FAINT))
        for points, colour, stroke in ((panel.points, OTHERS, 1), (panel.fit, ACCENT, 3)):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points))
            parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{stroke}'/>")
    foot = top + len(panels) * (height + gap) - gap
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_text(left + share * width, foot + 18, shown(share * last), anchor="middle", colour=FAINT))
    parts.append(_text(left + width / 2, foot + 38, x_title, anchor="middle", colour=FAINT))
    return _page(left + width + 40, foot + 52, parts)


def _apart(ends: list[tuple[float, float, str, str]]) -> list[tuple[float, float, str, str]]:
    """Moves names that end at the same place apart, upwards ones first."""
    placed: list[tuple[float, float, str, str]] = []
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        lowest = max((y0 + 17 for x0, y0, _, _ in placed if abs(x0 - x) < 100), default=y)
        placed.append((x, max(y, lowest), name, colour))
    return placed


def _cycle(series: Mapping[str, object], highlight: Collection[str]) -> list[str]:
    plain = iter(LINE_COLOURS * (1 + len(series) // len(LINE_COLOURS)))
    return [ACCENT if name in highlight else next(plain) for name in series]


def _share(value: float, lowest: float, highest: float) -> float:
    return math.log(value / lowest) / math.log(highest / lowest)


def _decades(lowest: float, highest: float) -> list[float]:
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _ticks(lowest: float, highest: float) -> list[float]:
    """1, 2, 5, 10 … around the values."""
    steps = [step * 10.0**power for power in range(-3, 9) for step in (1, 2, 5)]
    first = max(i for i, step in enumerate(steps) if step <= lowest)
    last = min(i for i, step in enumerate(steps) if step >= highest and i > first)
    return steps[first : last + 1]


def _text(
    x: float, y: float, text: str, *, size: int = 13, colour: str = INK, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' font-weight='{weight}' fill='{colour}' "
        f"text-anchor='{anchor}'>{escape(text)}</text>"
    )


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, width: int) -> str:
    (x1, y1), (x2, y2) = start, end
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' stroke-width='{width}'/>"


def _page(width: float, height: float, parts: Sequence[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' {FONT}>"
    paper = f"<rect width='{width:.0f}' height='{height:.0f}' fill='{PAPER}'/>"
    return "\n".join([head, paper, *parts, "</svg>"]) + "\n"
