"""A sheet to draw on, and its SVG.

The width of a text is reckoned, not measured, and on the safe side: no font is asked.
"""

from collections.abc import Iterable
from typing import Final
from xml.etree import ElementTree as ET

LETTER: Final = 0.58
"""The width of a letter beside its size; those of sans-serif fonts have less on average."""

FONT: Final = "Helvetica, Arial, sans-serif"
INK: Final = "#1f2933"


def wide(text: str, size: float) -> float:
    """Return about how wide a text is, rather too much than too little."""
    return len(text) * size * LETTER


def cut(text: str, size: float, room: float) -> str:
    """Return a text, shortened where it would be wider than there is room."""
    if wide(text, size) <= room:
        return text
    return text[: max(1, int(room / (size * LETTER)) - 3)].rstrip() + "..."


class Sheet:
    """A white page of A4, landscape, in units of which 96 are an inch."""

    WIDTH: Final = 1123.0
    HEIGHT: Final = 794.0

    def __init__(self) -> None:
        self._svg = ET.Element(
            "svg",
            xmlns="http://www.w3.org/2000/svg",
            width="297mm",
            height="210mm",
            viewBox=f"0 0 {self.WIDTH:.0f} {self.HEIGHT:.0f}",
        )
        self.box((0, 0), (self.WIDTH, self.HEIGHT), "#ffffff", "paper")

    def box(
        self, corner: tuple[float, float], size: tuple[float, float], fill: str, kind: str
    ) -> None:
        """Fill a rectangle; its kind is its class, by which a style sheet may find it."""
        (x, y), (width, height) = corner, size
        self._add("rect", kind, x=x, y=y, width=width, height=height, fill=fill)

    def line(
        self, start: tuple[float, float], end: tuple[float, float], ink: str, **how: str
    ) -> None:
        """Draw a line; `kind` is its class and `dash` its pattern, such as 4 3."""
        (x1, y1), (x2, y2) = start, end
        dash = {"stroke-dasharray": how["dash"]} if "dash" in how else {}
        kind = how.get("kind", "grid")
        self._add("line", kind, x1=x1, y1=y1, x2=x2, y2=y2, stroke=ink, **dash)

    def diamond(self, x: float, y: float, size: float, fill: str, kind: str) -> None:
        """Draw a diamond round a point."""
        corners = ((x, y - size), (x + size, y), (x, y + size), (x - size, y))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        self._add("polygon", kind, points=points, fill=fill)

    def write(self, x: float, y: float, text: str, size: float, **how: str) -> None:
        """Write a text on one line; `anchor` is start or end, `weight` bold, `ink` its colour."""
        named = {"anchor": "text-anchor", "weight": "font-weight"}
        style = {named[key]: value for key, value in how.items() if key in named}
        style |= {"font-family": FONT, "fill": how.get("ink", INK)}
        written = self._add("text", "text", x=x, y=y, **{"font-size": f"{size:g}"}, **style)
        written.text = "".join(c if c.isprintable() else " " for c in text)

    def _add(self, tag: str, kind: str, **attributes: float | str) -> ET.Element:
        said = {
            name: value if isinstance(value, str) else f"{value:.1f}"
            for name, value in attributes.items()
        }
        return ET.SubElement(self._svg, tag, {"class": kind, **said})

    def text(self) -> str:
        """Return the sheet as an XML document."""
        ET.indent(self._svg)
        return ET.tostring(self._svg, encoding="unicode", xml_declaration=False) + "\n"


def legend(sheet: Sheet, x: float, y: float, marks: Iterable[tuple[str, str, str]]) -> None:
    """Write a line of (shape, colour, meaning); shapes are box, diamond, line and dashes."""
    for shape, ink, meaning in marks:
        match shape:
            case "box":
                sheet.box((x, y - 8), (14, 9), ink, "legend")
            case "diamond":
                sheet.diamond(x + 7, y - 4, 4, ink, "legend")
            case "line":
                sheet.line((x + 7, y - 10), (x + 7, y + 2), ink, kind="legend")
            case _:
                sheet.line((x + 7, y - 10), (x + 7, y + 2), ink, kind="legend", dash=shape)
        sheet.write(x + 19, y, meaning, 10)
        x += 19 + wide(meaning, 10) + 10
