"""One self-contained HTML file: no script, nothing from elsewhere, every word of a result escaped by the template."""

import base64
import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from clipact import __version__
from clipact.atomic_write import atomic_write
from clipact.errors import ResultError, VideoError
from clipact.evaluate.metric_values import MetricValue, metric_values
from clipact.evaluate.results import zero_shot_status
from clipact.report.sections import Result, compare_results, section
from clipact.video.load import load_clip


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
        with atomic_write(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise ResultError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}".replace("-", "−")


_SIDE = 176


def thumbnails(samples: Iterable[str], data: Path | None, *, root: str = ".") -> dict[str, str]:
    """A data URI for each sample below `data`/`root` that can be read; a sample may name a part, "name@2.5-4"."""
    found: dict[str, str] = {}
    for sample in dict.fromkeys(samples):
        if data is None:
            break
        name, start, end = _span(sample)
        path = (data / root / name).resolve()
        if not path.is_relative_to(data.resolve()):  # a result is an untrusted file
            continue
        try:
            clip = load_clip(path, start, end, frames=1)
        except VideoError:
            continue
        picture = Image.fromarray(clip.frames[0])
        picture.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        found[sample] = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return found


def _span(sample: str) -> tuple[str, float | None, float | None]:
    name, at, span = sample.rpartition("@")
    start, dash, end = span.partition("-")
    try:
        return (name, float(start), float(end) if end else None) if at and dash else (sample, None, None)
    except ValueError:
        return sample, None, None


_TEMPLATE = Path(__file__).with_name("page.html.j2")


def render_page(results: Sequence[Result], *, data: Path | None = None) -> str:
    """The page about these results; pictures of samples are taken from below `data`, if it is given."""
    sections = [section(result) for result in results]
    title, names = titles(results)
    found = [metric_values(result) for result in results]
    return render(
        _TEMPLATE,
        sections=sections,
        metric_values=found,
        tables=_tables(found),
        title=title,
        names=names,
        comparisons=compare_results(results),
        pictures=[thumbnails(one.pictured, data, root=one.root) for one in sections],
        data_given=data is not None,
        zero_shot_status=zero_shot_status,
        version=__version__,
    )


def write_page(results: Sequence[Result], path: Path, *, data: Path | None = None) -> Path:
    """The page as a file, written beside and renamed; ResultError when it cannot be written."""
    return write_text(path, render_page(results, data=data))


def titles(results: Sequence[Result]) -> tuple[str, list[str]]:
    """The page's title, and what each result is called: by what tells it from the others, at last by a number."""
    titles = [str(result.run.get("title") or result.run.get("protocol") or "an evaluation") for result in results]
    models = [str((result.run.get("model") or {}).get("name", "model")) for result in results]
    if len(set(titles)) == 1:
        title, names = titles[0], models
    elif len(set(models)) == 1:
        title, names = f"{models[0]}: {len(results)} evaluations", titles
    else:
        title, names = f"{len(results)} evaluations", [f"{one} · {of}" for one, of in zip(models, titles, strict=True)]
    for more in (
        [str(result.run.get("protocol", "")) for result in results],
        [str(n + 1) for n in range(len(results))],
    ):
        if len(set(names)) < len(names) and len(set(more)) > 1:
            names = [f"{name} · {one}" for name, one in zip(names, more, strict=True)]
    return title[:1].upper() + title[1:], names


def _tables(found: Sequence[Sequence[MetricValue]]) -> list[tuple[tuple[str, ...], list[int]]]:
    """The tables of the summary: the figures' names, and the numbers of all results that have exactly these."""
    tables: dict[tuple[str, ...], list[int]] = {}
    for number, own in enumerate(found):
        if own:
            tables.setdefault(tuple(figure.name for figure in own), []).append(number)
    return list(tables.items())
