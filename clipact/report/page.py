"""One self-contained HTML file: no script, nothing from elsewhere, every word of a result escaped by the template."""

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clipact import __version__
from clipact.errors import ResultError
from clipact.figures import figures
from clipact.report.compare import compare
from clipact.report.sections import Result, section
from clipact.report.thumbnails import thumbnails

_TEMPLATE = "page.html.j2"


def render_page(results: Sequence[Result], *, data: Path | None = None) -> str:
    """The page about these results; pictures of samples are taken from below `data`, if it is given."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    sections = [section(result) for result in results]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["p"] = lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}"
    environment.tests["nan"] = math.isnan
    return environment.get_template(_TEMPLATE).render(
        sections=sections,
        figures=[figures(result) for result in results],
        names=_names(results),
        comparisons=compare(results),
        pictures=[thumbnails(one.pictured, data, root=one.root) for one in sections],
        data_given=data is not None,
        version=__version__,
    )


def write_page(results: Sequence[Result], path: Path, *, data: Path | None = None) -> Path:
    """The page as a file, written beside and renamed; ResultError when it cannot be written."""
    text = render_page(results, data=data)
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(beside).chmod(0o644)
            os.replace(beside, path)
        finally:
            Path(beside).unlink(missing_ok=True)
    except OSError as error:
        raise ResultError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}".replace("-", "−")


def _names(results: Sequence[Result]) -> list[str]:
    """What each result is called: its model, and its card where there are several."""
    cards = [str(result.run.get("title") or result.run.get("card") or "result") for result in results]
    models = [str((result.run.get("model") or {}).get("name", "model")) for result in results]
    if len(set(cards)) == 1:
        return models
    return [f"{model} · {card}" for model, card in zip(models, cards, strict=True)]
