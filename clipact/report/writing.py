"""What every page and table here is made with: one template engine, one look, one way to the disk."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clipact.errors import ResultError
from clipact.replacing import replacing


def render(template: Path, **values: Any) -> str:
    """The template filled: every value is escaped, a missing one is an error; `style.css` here can be included."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["p"] = lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}"
    environment.tests["nan"] = math.isnan
    return environment.get_template(template.name).render(**values)


def csv_text(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table as CSV, its head first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()


def write_text(path: Path, text: str) -> Path:
    """The text as a file, written beside and renamed; ResultError when it cannot be written."""
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise ResultError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}".replace("-", "−")
