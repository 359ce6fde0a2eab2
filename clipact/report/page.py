"""One self-contained HTML file: no script, nothing from elsewhere, every word of a result escaped by the template."""

from collections.abc import Sequence
from pathlib import Path

from clipact import __version__
from clipact.figures import figures
from clipact.report.compare import compare
from clipact.report.sections import Result, section
from clipact.report.thumbnails import thumbnails
from clipact.report.writing import render, write_text
from clipact.scores import verdict

_TEMPLATE = Path(__file__).with_name("page.html.j2")


def render_page(results: Sequence[Result], *, data: Path | None = None) -> str:
    """The page about these results; pictures of samples are taken from below `data`, if it is given."""
    sections = [section(result) for result in results]
    return render(
        _TEMPLATE,
        sections=sections,
        figures=[figures(result) for result in results],
        names=_names(results),
        comparisons=compare(results),
        pictures=[thumbnails(one.pictured, data, root=one.root) for one in sections],
        data_given=data is not None,
        verdict=verdict,
        version=__version__,
    )


def write_page(results: Sequence[Result], path: Path, *, data: Path | None = None) -> Path:
    """The page as a file, written beside and renamed; ResultError when it cannot be written."""
    return write_text(path, render_page(results, data=data))


def _names(results: Sequence[Result]) -> list[str]:
    """What each result is called: its model, and its card where there are several."""
    cards = [str(result.run.get("title") or result.run.get("card") or "result") for result in results]
    models = [str((result.run.get("model") or {}).get("name", "model")) for result in results]
    if len(set(cards)) == 1:
        return models
    return [f"{model} · {card}" for model, card in zip(models, cards, strict=True)]
