"""`clipact calibrate`: fit temperature, conformal sets and a rejection threshold on labelled clips."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipact.cli.terminal import AllowMismatch, DataFolder, Device, ModelName, PrecisionOption

if TYPE_CHECKING:
    from clipact.calibration import Calibration

_FEW = 10  # groups, for whom no share of them says much


def calibrate(
    protocol_or_table: Annotated[
        str,
        typer.Argument(metavar="PROTOCOL|MANIFEST", help="A protocol, or a CSV table of path and label (and group)."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration, a small JSON file.")],
    model: ModelName = "mini",
    data: DataFolder = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", "-l", show_default="the clips' own", help="All that is chosen from."),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(show_default="the protocol's, or action", help="The sentences.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, show_default="the protocol's, or the model's", help="Frames a clip.")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, show_default="the protocol's, or 1", help="Clips a video.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which samples of a table.")] = "all",
    coverage: Annotated[float, typer.Option(help="How often a label set is to hold the right label.")] = 0.9,
    false_rejection_rate: Annotated[
        float, typer.Option(help="The share of clips that fit a label and may be called none of these.")
    ] = 0.05,
    ood_score: Annotated[
        str,
        typer.Option(
            help="The out-of-distribution score, for none of these: background, energy, margin or max_softmax."
        ),
    ] = "background",
    allow_mismatch: AllowMismatch = False,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Learn from labelled clips how far answers can be trusted.

    clipact calibrate mine.csv --data ~/videos --out mine.json

    clipact classify new.mp4 --calibration mine.json

    The file holds a temperature, with which a score of 80 % is right eight times
    in ten; what a set of labels must hold to have the right one as often as
    --coverage asks; how badly a clip must fit to be none of these; and, for
    --multi-label, a threshold for each label. It brings its labels, sentences,
    frames and clips to `classify`, and is for the same model alone.

    Half of the clips fit and half check: give forty or more, like those to come.
    What shares a value in a column named group (a person, a film) stays in one
    half; without that column, so do parts of one file. Exit code 1 when a
    file could not be read; the others are used. Stopped, the same command begins
    again, but decodes and encodes nothing twice (clipact cache).
    """
    from dataclasses import replace

    from clipact.cli.terminal import find_protocol, note, show_video_progress, track
    from clipact.errors import UsageError, choices
    from clipact.prompts import PromptSet, parse_labels

    for name, share in (("coverage", coverage), ("false-rejection-rate", false_rejection_rate)):
        if not 0 < share < 1:
            raise UsageError(f"--{name} is {share:g}; a share between 0 and 1, such as 0.1")
    protocol, folder = find_protocol(protocol_or_table, data, split=split)
    label_set = parse_labels(labels) if labels else None
    prompt_set = PromptSet.load(prompts or protocol.words.templates)

    from clipact.cache import Cache
    from clipact.calibration import OOD_SCORES, check_out_path
    from clipact.evaluate import EvalOptions, read_samples
    from clipact.evaluate.fit_calibration import fit_calibration as fit
    from clipact.models.zoo import load_model

    if ood_score not in OOD_SCORES:
        raise UsageError(f"--ood-score is {ood_score!r}; {choices(ood_score, OOD_SCORES)}")
    check_out_path(out)
    samples = read_samples(protocol, folder, allow_mismatch=allow_mismatch)

    def progress(items: Iterable[Any], total: int | None, _: str) -> Iterable[Any]:
        return track(items, total=total, what=protocol.name)

    calibration, scores = fit(
        load_model(model, device=device, precision=precision, defer_text=True),
        samples,
        labels=label_set,
        prompts=prompt_set,
        views=replace(protocol.views, frames=frames or protocol.views.frames, views=clips or protocol.views.views),
        source=protocol.title + (", partial" if samples.partial_why else ""),
        coverage=coverage,
        false_rejection_rate=false_rejection_rate,
        score=ood_score,
        options=EvalOptions(cache=Cache(), progress=progress, video_progress=show_video_progress),
    )
    calibration.save(out)
    if as_json:
        print(json.dumps(_object(calibration, out), ensure_ascii=False))
    else:
        _show(calibration, out)
    if calibration.metrics.calibration_error_after > calibration.metrics.calibration_error_before:
        note("calibration error did not fall: the clips are too few, or too unlike each other", kind="warning")
    if calibration.groups < _FEW:
        note(f"all clips are of {calibration.groups} groups: of others less may hold than is promised", kind="warning")
    for sample, cause in scores.unreadable[:20]:
        note(f"{sample}: {cause}", kind="error")
    if scores.unreadable:
        note(f"{len(scores.unreadable):,} files could not be read; the others were used", kind="error")
        raise typer.Exit(1)


def _object(found: "Calibration", out: Path) -> dict[str, Any]:
    params = asdict(found.params)
    params["thresholds"] = dict(zip(found.target.labels.labels, found.params.thresholds, strict=True))
    return {
        "calibration": str(out),
        "clips": found.clips,
        "groups": found.groups,
        **params,
        "metrics": asdict(found.metrics),
    }


def _show(found: "Calibration", out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    metrics, params, answers = found.metrics, found.params, found.target
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    groups = f" in {found.groups:,} groups" if found.groups < found.clips else ""
    table.add_row("clips", f"{found.clips:,}{groups}, of which {metrics.clips:,} check what the others fit")
    table.add_row("right answers", f"{metrics.top_1:.1%} of {len(answers.labels)} labels")
    table.add_row("temperature", f"{params.temperature:.2f}")
    table.add_row(
        "calibration error",
        f"{metrics.calibration_error_before:.1%} before, {metrics.calibration_error_after:.1%} after",
    )
    table.add_row("label sets", f"{metrics.set_size:.1f} labels on average, for a coverage of {params.coverage:.0%}")
    table.add_row(
        "none of these",
        f"{params.score} under {params.threshold:.2f}, for {params.false_rejection_rate:.0%} false rejections",
    )
    known = ", ".join(f"{name} {value:.2f}" for name, value in sorted(metrics.auroc.items(), key=lambda one: -one[1]))
    table.add_row("half hidden", f"AUROC {known}; 0.5 is chance")
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 80)
    console.print(table)
    console.print(Text(str(out), style="dim"), soft_wrap=True)
