"""`clipact classify`: name the action in videos, among given labels."""

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipact.cli.terminal import Device, PrecisionOption, Videos
from clipact.errors import UsageError, VideoError

if TYPE_CHECKING:
    from clipact.classify.base import VideoClassifier
    from clipact.classify.prediction import Prediction

# A thread that decodes meanwhile asks for the interpreter's lock at each packet, and would wait up to 5 ms each time:
# of 60 s of 1080p it decodes three quarters while torch is imported, not half (two cores).
_LOCK_SECONDS = 0.0005


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
        str, typer.Option(help="pyav, or torchcodec when it is installed: the same frames, another library.")
    ] = "pyav",
    time_limit: Annotated[
        float | None,
        typer.Option(min=0.1, show_default="none", help="Seconds a video may take, decoded in a process of its own."),
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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a video and line.")] = False,
) -> None:
    """Name the action in each video by words of your own.

    clipact classify video.mp4 --labels drink,read

    clipact classify clips/ --labels kinetics400 --top 3 --json > answers.jsonl

    clipact classify video.mp4 --model runs/i3d/best (a supervised model: it has labels)

    clipact classify new.mp4 --calibration mine.json

    Scores are a softmax over all labels; --top only cuts what is shown. One label
    is best even where none fits: with a calibration, or with --multi-label, the
    answer can be none of these.
    Exit code 1 when a video could not be read; the others are done all the same.
    """
    from clipact.cli.terminal import expand_videos, index_folder, note, show_progress, track
    from clipact.models.checkpoint import checkpoint_folder, read_config
    from clipact.prompts import PromptSet, parse_labels
    from clipact.video.collect import check_decoder
    from clipact.video.load import decode_ahead

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
    reading: dict[str, Any] = {
        "clips": clips or (fitted.target.views.views if fitted else 1),
        "start_seconds": start,
        "end_seconds": end,
        "decoder": decoder,
        "time_limit_seconds": time_limit,
    }
    decoded = None
    if config is not None:
        # The videos are decoded while torch is imported, which takes longer than a clip does.
        spec = fitted.target.views.apply(config.clip) if fitted else config.clip.with_frames(frames)
        decoded = decode_ahead(paths, spec, **reading)

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
    decoded = decoded or decode_ahead(paths, classifier.spec, **reading)

    def answers() -> "Iterator[tuple[str, Prediction | VideoError]]":
        for item in decoded:
            yield item.source, item.error or classifier.classify_decoded(item)

    said = fitted.target.prompts if fitted else prompt_set
    failed, prompts_name = 0, "" if indexed or own or said is None else said.name
    for source, answer in track(answers(), total=len(paths), what="classifying", prints=True):
        failed += isinstance(answer, VideoError)
        if as_json:
            print(json.dumps(_row(source, answer, model=model, prompts=prompts_name, top=top)), flush=True)
        elif isinstance(answer, VideoError):
            note(str(answer), kind="error")
        else:
            _show(answer, top=top)
    if failed:
        note(f"{failed} of {len(paths)} videos could not be read", kind="error")
        raise typer.Exit(1)


def _show(prediction: "Prediction", *, top: int) -> None:
    from rich.console import Console

    from clipact.cli.terminal import note, prediction_table

    Console(file=sys.stdout).print(prediction_table(prediction, top=top), "")
    for remark in prediction.notes:
        note(f"{prediction.video}: {remark}", kind="warning")


def _row(source: str, answer: "Prediction | VideoError", *, model: str, prompts: str, top: int) -> dict[str, Any]:
    known = None if isinstance(answer, VideoError) else answer
    row: dict[str, Any] = {
        "video": source,
        "model": model,
        "prompts": known.prompts if known else prompts,
        "duration_seconds": known and known.duration_seconds,
        "decoder": known and known.decoder,
        "frames": [{"index": s.index, "seconds": s.seconds} for s in known.frames] if known else [],
        "predictions": [{"label": e.label, "score": e.score} for e in known.top(top)] if known else [],
        "notes": list(known.notes) if known else [],
        "error": {"type": type(answer).__name__, "message": str(answer)} if isinstance(answer, VideoError) else None,
    }
    for name in ("outside", "agreement", "trust", "accepted"):
        if known and (said := getattr(known, name)) is not None:
            row[name] = list(said) if isinstance(said, tuple) else asdict(said)
    return row
