"""`clipact classify`: name the action in videos, among given labels."""

import gc
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipact.cli.terminal import MACHINE, Device, PrecisionOption, Resume, Threads, Videos, Workers
from clipact.errors import UsageError, VideoError

if TYPE_CHECKING:
    from clipact.classify.base import VideoClassifier
    from clipact.classify.prediction import Prediction
    from clipact.clip_spec import ClipSpec
    from clipact.embed.clip_source import ClipSource
    from clipact.video.clip import Clip

# A thread that decodes meanwhile asks for the interpreter's lock at each packet, and would wait up to 5 ms each time:
# of 60 s of 1080p it decodes three quarters while torch is imported, not half (two cores).
_LOCK_SECONDS = 0.0005
_VIDEOS_AHEAD, _FRAMES_AHEAD = 2, 512
_NAMED = 20  # errors that are said beside a file of answers, which names all of them


@contextmanager
def quick_imports() -> Iterator[None]:
    """What is imported inside stays until the end: nobody looks through it for garbage, now or later.

    That would cost 0.15 s in torch's import, and 0.1 s in what follows.
    """
    interval, collecting = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(_LOCK_SECONDS)
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.freeze()
        if collecting:
            gc.enable()


def classify(
    videos: Videos,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            "-l",
            show_default="the calibration's",
            help="What to choose from: [bold]drink,read[/] or @file.txt (one a line) or a shipped set such as "
            "kinetics400. Repeatable. Or [bold]index:DIR[/], of `clipact index build`. A supervised model has its own.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            envvar="CLIPACT_MODEL",
            help="mini; the folder of a model that you trained; open_clip:ViT-B-32/openai or open_clip:hf-hub:ORG/NAME "
            "or transformers:ORG/NAME (downloaded once); open_clip:local-dir:FOLDER or transformers:FOLDER.",
        ),
    ] = "mini",
    prompts: Annotated[
        str | None,
        typer.Option(
            show_default="action, or the calibration's",
            help="The sentences into which labels are put: a set (`clipact prompts list`) or a file of your own.",
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, show_default="the model's own", help="Frames a clip.")] = None,
    clips: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="1",
            help="Clips a video, spread over it and averaged; of several it is said how many agree.",
        ),
    ] = None,
    start: Annotated[float | None, typer.Option("--from", min=0, help="Begin at this second.")] = None,
    end: Annotated[float | None, typer.Option("--to", min=0, help="End at this second.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many labels to show.")] = 5,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    decoder: Annotated[
        str,
        typer.Option(
            help="pyav, or torchcodec when it is installed: the same frames, another library.", rich_help_panel=MACHINE
        ),
    ] = "pyav",
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            show_default="none",
            help="Seconds a video may take, decoded in a process of its own.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            show_default="none",
            help="A file of `clipact calibrate`: calibrated scores, the labels that could be right, and if none fits.",
        ),
    ] = None,
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label",
            help="Score each label by itself: several may fit, or none. Thresholds are the calibration's; without "
            "one, 0.5: likelier than 300 background words together.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", show_default="the screen", help="Answers of many videos: a .jsonl, .csv or .parquet file."
        ),
    ] = None,
    resume: Resume = False,
    workers: Workers = None,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a video and line.")] = False,
) -> None:
    """Name the action in each video by words of your own.

    clipact classify video.mp4 --labels drink,read

    clipact classify clips/ --labels kinetics400 --top 3 --json > answers.jsonl

    clipact classify @videos.txt --labels kinetics400 --out answers.parquet

    clipact classify video.mp4 --model runs/i3d/best (a supervised model: it has labels)

    clipact classify new.mp4 --calibration mine.json

    Scores are a softmax over all labels; --top only cuts what is shown. One label
    is best even where none fits: with a calibration, or with --multi-label, the
    answer can be none of these. Embeddings are kept: the same videos with other
    labels are not decoded again (clipact cache).
    Exit code 1 when a video could not be read; the others are done all the same.
    """
    from clipact.cache import Cache
    from clipact.classify.answer_file import answer_row, check_answer_file
    from clipact.cli.terminal import index_folder, note, show_progress, show_video_progress, track
    from clipact.embed.clip_source import ClipSource
    from clipact.embed.named_videos import expand_videos
    from clipact.embed.options import EmbedOptions
    from clipact.models.checkpoint import checkpoint_folder, read_config
    from clipact.prompts import PromptSet, parse_labels
    from clipact.video.ways import check_decoder

    if out is None and resume:
        raise UsageError("--resume goes on with the file of --out; name it")
    if out is not None:
        check_answer_file(out)
    paths = expand_videos(videos)
    config = None if (folder := checkpoint_folder(model)) is None else read_config(folder)
    own = config.labels if config else ()
    indexed = index_folder(labels or ())
    fitted = None
    if calibration is not None:
        from clipact.calibration import Calibration

        fitted = Calibration.load(calibration)
    if (fitted or multi_label) and (indexed or own):
        why = f"labels that are given, not for an index ({indexed})" if indexed else f"words, and {model} has none"
        raise UsageError(f"--calibration and --multi-label are for {why}")
    if not labels and not own and not fitted:
        raise UsageError("--labels is missing: say what to choose from, such as --labels drink,read or @labels.txt")
    label_set = None if indexed or not labels else parse_labels(labels)
    if prompts is not None and (indexed or own):
        why = (
            f"{indexed}: its sentences were chosen when the index was built" if indexed else f"{model}: it has no words"
        )
        raise UsageError(f"--prompts cannot be used with {why}")
    prompt_set = None if prompts is None and fitted else PromptSet.load(prompts or "action")
    check_decoder(decoder)
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--to is {end:g}, not after --from {start:g}: name a span that has a length")
    rows = [ClipSource(source=path, name=path, start_seconds=start, end_seconds=end) for path in paths]
    options = EmbedOptions(
        workers=workers,
        threads=threads,
        cache=Cache(),
        journal=None if out is None else out.with_name(f"{out.name}.journal"),
        resume=resume,
        time_limit_seconds=time_limit,
        progress=lambda items, total, what: track(items, total=total, what=what, prints=out is None),
        video_progress=show_video_progress,
    )
    looked_at = clips or (fitted.target.views.views if fitted else 1)
    decoded: dict[int, Future[tuple[Clip, ...]]] = {}
    if config is not None and time_limit is None and not resume:
        # The videos are decoded while torch is imported, which takes longer than a clip does.
        spec = fitted.target.views.apply(config.clip) if fitted else config.clip.with_frames(frames)
        decoded = _decode_first(rows, spec, clips=looked_at, decoder=decoder)

    with quick_imports():
        import clipact.models.zoo  # noqa: F401  # and torch with it, which no classifier imports
        from clipact.classify.zero_shot import ZeroShotClassifier

    if model == "mini":
        note("mini is small and embedded; larger models are more accurate: --model open_clip:ViT-B-32/openai")
    loading: dict[str, Any] = {"frames": frames, "device": device, "precision": precision}
    classifier: VideoClassifier
    if indexed:
        from clipact.classify.from_index import IndexClassifier

        classifier = IndexClassifier.load(model, indexed, clips=clips or 1, **loading)
    elif own:
        from clipact.classify.supervised import SupervisedClassifier

        classifier = SupervisedClassifier.load(model, labels=label_set, clips=clips or 1, **loading)
    elif fitted or multi_label:
        from clipact.classify.calibrated import CalibratedClassifier

        classifier = CalibratedClassifier.load(
            model,
            calibration=fitted,
            labels=label_set,
            prompts=prompt_set,
            clips=clips,
            multi_label=multi_label,
            progress=show_progress,
            **loading,
        )
    else:
        assert label_set is not None
        assert prompt_set is not None
        classifier = ZeroShotClassifier.load(
            model, labels=label_set, prompts=prompt_set, clips=clips or 1, progress=show_progress, **loading
        )
    classifier.decoder = decoder
    said = fitted.target.prompts if fitted else prompt_set
    prompts_name = "" if indexed or own or said is None else said.name
    show = partial(_show, as_json=as_json, model=model, prompts=prompts_name, top=top)
    failed = 0
    with _writer(out, top=min(top, len(classifier.labels)) if out is not None else top) as write:
        for found, answer in classifier.classify_rows(rows, options, decoded=decoded):
            failed += isinstance(answer, VideoError)
            if write is None:
                show(found.name, answer)
            else:
                write(answer_row(found.name, answer, model=model, prompts=prompts_name, top=top))
                if isinstance(answer, VideoError) and failed <= _NAMED:
                    note(str(answer), kind="error")
    if options.journal is not None:
        options.journal.unlink(missing_ok=True)
        print(out)
    if failed:
        note(f"{failed:,} of {len(paths):,} videos could not be read", kind="error")
        raise typer.Exit(1)


def _decode_first(
    rows: "Sequence[ClipSource]", spec: "ClipSpec", *, clips: int, decoder: str
) -> "dict[int, Future[tuple[Clip, ...]]]":
    """Begin to decode the first videos, by their numbers; a stream and a clip of very many frames wait their turn."""
    from clipact.cli.terminal import show_video_progress
    from clipact.video.collect import Wanted
    from clipact.video.load import load_wanted
    from clipact.video.open_source import FILE, source_kind

    if clips * spec.frames > _FRAMES_AHEAD:
        return {}
    pool = ThreadPoolExecutor(_VIDEOS_AHEAD, thread_name_prefix="decode")
    return {
        number: pool.submit(
            load_wanted,
            row.source,
            Wanted(
                spec=spec,
                clips=clips,
                start_seconds=row.start_seconds,
                end_seconds=row.end_seconds,
                decoder=decoder,
                decoder_threads=1,
            ),
            progress=show_video_progress,
        )
        for number, row in enumerate(rows[:_VIDEOS_AHEAD])
        if source_kind(row.source) == FILE
    }


@contextmanager
def _writer(out: Path | None, *, top: int) -> "Iterator[Callable[[Any], None] | None]":
    if out is None:
        yield None
        return
    from clipact.classify.answer_file import answer_writer

    with answer_writer(out, top=top) as write:
        yield write


def _show(source: str, answer: "Prediction | VideoError", *, as_json: bool, model: str, prompts: str, top: int) -> None:
    from rich.console import Console

    from clipact.classify.answer_file import answer_row
    from clipact.cli.terminal import note, prediction_table

    if as_json:
        print(json.dumps(answer_row(source, answer, model=model, prompts=prompts, top=top)), flush=True)
    elif isinstance(answer, VideoError):
        note(str(answer), kind="error")
    else:
        Console(file=sys.stdout).print(prediction_table(answer, top=top), "")
        for remark in answer.notes:
            note(f"{answer.video}: {remark}", kind="warning")
