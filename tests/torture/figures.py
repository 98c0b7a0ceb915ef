"""What a torture measured: as JSON and as a table in `torture/`, and on the screen."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "torture"
WIDTH = 150

Row = Mapping[str, Any]


def write(name: str, rows: Sequence[Row], *, about: str, **more: Any) -> None:
    """Write rows of figures, all with the same columns, and whatever else is worth keeping."""
    FOLDER.mkdir(exist_ok=True)
    document = {
        "torture": name,
        "about": about,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        **more,
        "rows": list(rows),
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1, default=str) + "\n")
    with (FOLDER / f"{name}.txt").open("w") as file:
        for console in (Console(file=file, width=WIDTH), Console(width=WIDTH)):
            console.print(
                _table(name, rows, about), *(f"{k}: {v}" for k, v in more.items()), sep="\n"
            )


def say(line: str) -> None:
    """Say how far a torture is."""
    Console(stderr=True, highlight=False).print(line, style="dim")


def _table(name: str, rows: Sequence[Row], about: str) -> Table:
    table = Table(title=f"{name}: {about}", title_justify="left", box=None)
    for column in rows[0] if rows else ():
        table.add_column(str(column), overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()))
    return table


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of all values lies; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
