"""One self-contained HTML file: no script, nothing from elsewhere, every word of a result escaped by the template."""

from collections.abc import Sequence
from pathlib import Path

from clipact import __version__
from clipact.figures import Figure, figures
from clipact.report.compare import compare
from clipact.report.sections import Result, section
from clipact.report.thumbnails import thumbnails
from clipact.report.writing import render, write_text
from clipact.scores import verdict

_TEMPLATE = Path(__file__).with_name("page.html.j2")


def render_page(results: Sequence[Result], *, data: Path | None = None) -> str:
    """The page about these results; pictures of samples are taken from below `data`, if it is given."""
    sections = [section(result) for result in results]
    title, names = titles(results)
    found = [figures(result) for result in results]
    return render(
        _TEMPLATE,
        sections=sections,
        figures=found,
        tables=_tables(found),
        title=title,
        names=names,
        comparisons=compare(results),
        pictures=[thumbnails(one.pictured, data, root=one.root) for one in sections],
        data_given=data is not None,
        verdict=verdict,
        version=__version__,
    )


def write_page(results: Sequence[Result], path: Path, *, data: Path | None = None) -> Path:
    """The page as a file, written beside and renamed; ResultError when it cannot be written."""
    return write_text(path, render_page(results, data=data))


def titles(results: Sequence[Result]) -> tuple[str, list[str]]:
    """The page's title, and what each result is called: by what tells it from the others, at last by a number."""
    titles = [str(result.run.get("title") or result.run.get("card") or "an evaluation") for result in results]
    models = [str((result.run.get("model") or {}).get("name", "model")) for result in results]
    if len(set(titles)) == 1:
        title, names = titles[0], models
    elif len(set(models)) == 1:
        title, names = f"{models[0]}: {len(results)} evaluations", titles
    else:
        title, names = f"{len(results)} evaluations", [f"{one} · {of}" for one, of in zip(models, titles, strict=True)]
    for more in ([str(result.run.get("card", "")) for result in results], [str(n + 1) for n in range(len(results))]):
        if len(set(names)) < len(names) and len(set(more)) > 1:
            names = [f"{name} · {one}" for name, one in zip(names, more, strict=True)]
    return title[:1].upper() + title[1:], names


def _tables(found: Sequence[Sequence[Figure]]) -> list[tuple[tuple[str, ...], list[int]]]:
    """The tables of the summary: the figures' names, and the numbers of all results that have exactly these."""
    tables: dict[tuple[str, ...], list[int]] = {}
    for number, own in enumerate(found):
        if own:
            tables.setdefault(tuple(figure.name for figure in own), []).append(number)
    return list(tables.items())
