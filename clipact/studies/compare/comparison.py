"""A comparison: a run for each method and seed, in a folder of its own; what is finished is not done again."""

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
from clipact.studies.compare.method import Method, parse_method
from clipact.studies.compare.method_run import MethodRun
from clipact.studies.compare.settings import CompareSettings, ExecutionContext
from clipact.studies.compare.split import ComparisonSplit
from clipact.studies.prompt_sweep.sweep_files import make_room


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishedRun:
    """Hold a finished run and its result; `before` where it was finished already."""

    method_run: MethodRun
    result: ClassificationResult
    before: bool = False


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """Hold a run that failed, its cause, and the file with the traceback; the next comparison tries it again."""

    method_run: MethodRun
    cause: str
    file: Path


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Plan a comparison: methods in their order, and a run for each seed of each."""

    split: ComparisonSplit
    settings: CompareSettings
    methods: tuple[Method, ...]
    seeds: int
    runs: tuple[MethodRun, ...]

    def execute(self, context: ExecutionContext | None = None) -> Iterator[FinishedRun | FailedRun]:
        """Execute each run, in order: a failure is yielded like a result, and the rest goes on."""
        context = context or ExecutionContext()
        for method_run in self.runs:
            if (kept := method_run.finished()) is not None:
                yield FinishedRun(method_run=method_run, result=kept, before=True)
                continue
            failure = method_run.folder / "failure.txt"
            try:
                method_run.folder.mkdir(parents=True, exist_ok=True)
                result = method_run.execute(context)
                failure.unlink(missing_ok=True)
            except Exception as error:  # whatever it is: one row's bug or lack of memory is not the others'
                cause = str(error) if isinstance(error, ClipactError) else f"{type(error).__name__}: {error}"
                write_text(failure, traceback.format_exc())
                yield FailedRun(method_run=method_run, cause=cause, file=failure)
                continue
            yield FinishedRun(method_run=method_run, result=result)


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
    methods = tuple(parse_method(name) for name in names)
    if not methods or len(set(names)) < len(names):
        raise UsageError(f"--models names {', '.join(names) or 'nothing'}; each row once, one at least")
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}; it is 1 or more")
    for method in methods:
        method.check(settings.clip)
    PromptSet.load(split.protocol.words.templates)
    make_room(out)
    table = split.write(out)
    runs = tuple(
        _method_run(method, seed, split, settings, out=out, table=table)
        for method in methods
        for seed in range(seeds if method.stochastic else 1)
    )
    return Comparison(split=split, settings=settings, methods=methods, seeds=seeds, runs=runs)


def _method_run(
    method: Method, seed: int, split: ComparisonSplit, settings: CompareSettings, *, out: Path, table: Path
) -> MethodRun:
    protocol = {name: value for name, value in to_table(split.protocol).items() if name not in ("folder", "source")}
    request = json.dumps(
        [{name: to_table(getattr(settings, name)) for name in method.settings_used}, protocol], sort_keys=True
    )
    sides = [f"{side} {item.name} {item.label}" for side, samples in split.sides for item in samples.items]
    digest = str(split.test.data["list_sha256"])
    key = content_key("cell 1", method.name, method.model_key(), str(seed), request, digest, *sides)
    folder = out / "cells" / f"{file_name(method.name)}-seed{seed}-{key[:8]}"
    return MethodRun(method=method, seed=seed, key=key, split=split, settings=settings, folder=folder, table=table)
