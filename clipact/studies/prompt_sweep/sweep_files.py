"""A sweep on disk: sweep.csv (a line a variant), classes.csv (a variant and label), confusions.csv, sweep.html."""

import math
import tempfile
from pathlib import Path

from clipact import __version__
from clipact.errors import ResultError
from clipact.evaluate.results import zero_shot_status
from clipact.report.page import csv_text, render, write_text
from clipact.studies.prompt_sweep.sweep import Sweep, VariantRow

_TEMPLATE = Path(__file__).with_name("sweep.html.j2")
_SHOWN = 6  # variants whose labels and confusions the page shows
_LISTED = 25  # variants that stand in its table; the others are folded away below it


def write_sweep(found: Sweep, folder: Path) -> list[Path]:
    """The four files, written one after the other; ResultError when one cannot be written."""
    make_room(folder)
    return [
        write_text(folder / "sweep.csv", table(found)),
        write_text(folder / "classes.csv", class_table(found)),
        write_text(folder / "confusions.csv", confusion_table(found)),
        write_text(folder / "sweep.html", page(found)),
    ]


def make_room(folder: Path) -> None:
    """Make the folder of a sweep, which may be there; ResultError when nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResultError(f"{folder} cannot be used: {error.strerror or error}; name another with --out") from error


def table(found: Sweep) -> str:
    """CSV, the best first: what the variant is, what it scored, how it differs from the baseline."""
    return csv_text(
        "variant templates label_format include over_templates over_words frames sentences top_1 low high per_class "
        "difference difference_low difference_high p_bootstrap p_holm p_mcnemar flips cured caused weights "
        "zero_shot_status".split(),
        (_line(found, row) for row in found.best_first),
    )


def class_table(found: Sweep) -> str:
    """CSV: the share of right answers of each label under each variant, and its change from the baseline."""
    base = found.rows[0].classes
    return csv_text(
        ["variant", "label", "samples", "right", "change"],
        (
            [row.variant.name, label, count, _number(right), _number(right - before)]
            for row in found.best_first
            for label, count, right, before in zip(found.labels, found.counts, row.classes, base, strict=True)
        ),
    )


def confusion_table(found: Sweep) -> str:
    """CSV: all confusions that each variant causes or cures, the largest change of each first."""
    return csv_text(
        ["variant", "truth", "answer", "before", "now"],
        (
            [row.variant.name, pair.truth, pair.answer, pair.before, pair.count]
            for row in found.best_first
            for pair in row.confusions
        ),
    )


def page(found: Sweep) -> str:
    """One self-contained HTML page, with the report's engine and look."""
    best = found.best_first
    first = [row for place, row in enumerate(best) if place < _LISTED or row is found.rows[0]]
    return render(
        _TEMPLATE,
        found=found,
        baseline=found.rows[0],
        rows=best,
        listed_first=first,
        others=[row for row in best if all(row is not one for one in first)],
        shown=[row for row in found.best_first if row is not found.rows[0]][:_SHOWN],
        changes=lambda row: _changes(found, row),
        zero_shot_status=zero_shot_status,
        version=__version__,
    )


def _changes(found: Sweep, row: VariantRow) -> list[tuple[str, int, float, float]]:
    """Label, samples, share before and now: those that change, the largest change first."""
    lines = zip(found.labels, found.counts, found.rows[0].classes, row.classes, strict=True)
    moved = [line for line in lines if line[1] and line[2] != line[3]]
    return sorted(moved, key=lambda line: (-abs(line[3] - line[2]), line[0]))[:12]


def _line(found: Sweep, row: VariantRow) -> list[object]:
    prompts, wording, difference = row.variant.prompts, row.variant.prompts.wording, row.difference
    compared: list[object] = [""] * 9
    if difference is not None:
        tested = (difference.value, difference.low, difference.high, difference.p, row.holm, row.mcnemar, row.flips)
        compared = [*map(_number, tested), row.cured, row.caused]
    return [
        row.variant.name + (" (baseline)" if row is found.rows[0] else ""),
        prompts.name,
        wording.names,
        "+".join(wording.words),
        wording.over_templates,
        wording.over_words,
        found.run["views"]["frames"] if row.variant.frames is None else row.variant.frames,
        row.sentences,
        *map(_number, (row.top_1.value, row.top_1.low, row.top_1.high, row.per_class)),
        *compared,
        " ".join(f"{weight:.4f}" for weight in row.weights),
        zero_shot_status(found.run),
    ]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
