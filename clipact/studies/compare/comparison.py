"""Rows and seeds become cells, each in a folder of its own below OUT/cells; what is finished is not done again."""

import json
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipact.cache import content_key
from clipact.config import to_table
from clipact.errors import ClipactError, UsageError
from clipact.evaluate.results import ClassificationResult
from clipact.evaluate.run_protocol import file_name
from clipact.prompts import PromptSet
from clipact.report.page import write_text
from clipact.studies.compare.execution import ExecutionContext
from clipact.studies.compare.method import Method, parse_method
from clipact.studies.compare.method_run import MethodRun
from clipact.studies.compare.settings import CompareSettings
from clipact.studies.compare.split import ComparisonSplit
from clipact.studies.prompt_sweep.sweep_files import make_room


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishedRun:
    """A cell and its result; `before` where it was finished already."""

    cell: MethodRun
    result: ClassificationResult
    before: bool = False


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A cell that came to nothing, why, and the file that says it all; the next run tries it again."""

    cell: MethodRun
    cause: str
    file: Path


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is to be compared: rows in their order, and a cell for each seed of each."""

    split: ComparisonSplit
    settings: CompareSettings
    contenders: tuple[Method, ...]
    seeds: int
    cells: tuple[MethodRun, ...]

    def carry_out(self, hands: ExecutionContext | None = None) -> Iterator[FinishedRun | FailedRun]:
        """What becomes of each cell, in order: a failure is handed on like a result, and the rest goes on."""
        hands = hands or ExecutionContext()
        for cell in self.cells:
            if (kept := cell.finished()) is not None:
                yield FinishedRun(cell=cell, result=kept, before=True)
                continue
            failure = cell.folder / "failure.txt"
            try:
                cell.folder.mkdir(parents=True, exist_ok=True)
                result = cell.carry_out(hands)
                failure.unlink(missing_ok=True)
            except Exception as error:  # whatever it is: one row's bug or lack of memory is not the others'
                said = str(error) if isinstance(error, ClipactError) else f"{type(error).__name__}: {error}"
                write_text(failure, traceback.format_exc())
                yield FailedRun(cell=cell, cause=said, file=failure)
                continue
            yield FinishedRun(cell=cell, result=result)


def plan_comparison(
    names: Sequence[str],
    split: ComparisonSplit,
    out: Path,
    *,
    settings: CompareSettings | None = None,
    seeds: int = 1,
) -> Comparison:
    """The comparison of these rows, seeds 0 to seeds - 1 of each that hangs on one; all that it names is there.

    Writes the split to OUT. UsageError for a row that means nothing or cannot see such clips, or that stands twice.
    """
    settings, out = settings or CompareSettings(), out.resolve()
    contenders = tuple(parse_method(name) for name in names)
    if not contenders or len(set(names)) < len(names):
        raise UsageError(f"--models names {', '.join(names) or 'nothing'}; each row once, one at least")
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}; it is 1 or more")
    for contender in contenders:
        contender.check(settings.clip)
    PromptSet.load(split.protocol.words.templates)
    make_room(out)
    table = split.write(out)
    cells = tuple(
        _cell(contender, seed, split, settings, out=out, table=table)
        for contender in contenders
        for seed in range(seeds if contender.drawn else 1)
    )
    return Comparison(split=split, settings=settings, contenders=contenders, seeds=seeds, cells=cells)


def _cell(
    contender: Method, seed: int, split: ComparisonSplit, settings: CompareSettings, *, out: Path, table: Path
) -> MethodRun:
    protocol = {name: value for name, value in to_table(split.protocol).items() if name not in ("folder", "source")}
    asked = json.dumps(
        [{name: to_table(getattr(settings, name)) for name in contender.hangs_on}, protocol], sort_keys=True
    )
    sides = [f"{side} {item.name} {item.label}" for side, samples in split.sides for item in samples.items]
    digest = str(split.tested.data["list_sha256"])
    key = content_key("cell 1", contender.name, contender.model_key(), str(seed), asked, digest, *sides)
    folder = out / "cells" / f"{file_name(contender.name)}-seed{seed}-{key[:8]}"
    return MethodRun(
        contender=contender, seed=seed, key=key, split=split, settings=settings, folder=folder, table=table
    )
