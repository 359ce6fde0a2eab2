"""`clipact frames`: the very frames that a model sees of a video, as one picture."""

from pathlib import Path
from typing import Annotated

import typer

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError


def frames(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="A file, a folder of pictures, - or an address.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the picture goes: a .png or .jpg.")],
    model: Annotated[
        str, typer.Option("--model", "-m", envvar="CLIPACT_MODEL", help="Whose frames: as for classify.")
    ] = "mini",
    count: Annotated[
        int | None, typer.Option("--frames", min=1, show_default="the model's own", help="Frames a clip.")
    ] = None,
    start: Annotated[float | None, typer.Option("--from", min=0, help="Begin at this second.")] = None,
    end: Annotated[float | None, typer.Option("--to", min=0, help="End at this second.")] = None,
    decoder: Annotated[str, typer.Option(help="pyav, or torchcodec when it is installed.")] = "pyav",
    time_limit: Annotated[
        float | None,
        typer.Option(min=0.1, show_default="none", help="Seconds it may take, decoded in a process of its own."),
    ] = None,
    columns: Annotated[int, typer.Option(min=1, help="Frames a row.")] = 8,
) -> None:
    """Show the frames of a video that a model would see, at its size, with their numbers and seconds.

    clipact frames video.mp4 --out strip.png
    """
    from clipact.cli.screen import note
    from clipact.video.load import load_clip
    from clipact.video.strip import draw_strip

    spec = model_spec(model)
    clip = load_clip(video, start, end, spec=spec, frames=count, decoder=decoder, time_limit_seconds=time_limit)
    try:
        draw_strip(clip, columns=columns).save(out)
    except (OSError, ValueError) as error:
        raise UsageError(f"{out} cannot be written: {error}; name a .png or .jpg in a folder that is there") from error
    for remark in clip.notes:
        note(f"{clip.source}: {remark}", kind="warning")
    print(
        f"{out}: {len(clip)} frames of {clip.source}, {spec.sampling}, {spec.size[1]} x {spec.size[0]}, {clip.decoder}"
    )


def model_spec(model: str) -> ClipSpec:
    """How a model's clips are prepared; its weights are loaded only where no config.json says so."""
    from clipact.model_config import checkpoint_folder, read_config

    if (folder := checkpoint_folder(model)) is not None:
        return read_config(folder).clip
    from clipact import zoo

    return zoo.load(model).encoder.spec
