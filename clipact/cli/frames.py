"""`clipact frames`: the very frames that a model sees of a video, as one picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError

if TYPE_CHECKING:
    from clipact.video.clip import Clip


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
    attention: Annotated[
        bool, typer.Option("--attention", help="Draw the attention of an attention_pool tower.")
    ] = False,
) -> None:
    """Show the frames of a video that a model would see, at its size, with their numbers and seconds.

    clipact frames video.mp4 --out strip.png

    clipact frames video.mp4 --out attention.png --model runs/attention/best --attention
    """
    from clipact.cli.terminal import note, show_video_progress
    from clipact.video.draw import draw_strip
    from clipact.video.load import load_clip

    spec = model_spec(model)
    clip = load_clip(
        video,
        start,
        end,
        spec=spec,
        frames=count,
        decoder=decoder,
        time_limit_seconds=time_limit,
        progress=show_video_progress,
    )
    if attention:
        clip = _with_attention(clip, spec, model)
    try:
        draw_strip(clip).save(out)
    except (OSError, ValueError) as error:
        raise UsageError(f"{out} cannot be written: {error}; name a .png or .jpg in a folder that is there") from error
    for remark in clip.notes:
        note(f"{clip.source}: {remark}", kind="warning")
    print(
        f"{out}: {len(clip)} frames of {clip.source}, {spec.sampling}, {spec.size[1]} x {spec.size[0]}, {clip.decoder}"
    )


def model_spec(model: str) -> ClipSpec:
    """How a model's clips are prepared; its weights are loaded only where no config.json says so."""
    from clipact.models.checkpoint import checkpoint_folder, read_config

    if (folder := checkpoint_folder(model)) is not None:
        return read_config(folder).clip
    from clipact.models import zoo

    return zoo.load_model(model).encoder.spec


def _with_attention(clip: "Clip", spec: ClipSpec, model: str) -> "Clip":
    """The clip with what the model looks at drawn over its frames; UsageError for a model that does not tell."""
    import torch

    from clipact.models import zoo
    from clipact.models.dual_encoder import prepare_views
    from clipact.models.towers.attention_pool import AttentionPoolTower
    from clipact.video.draw import overlay_maps

    tower = zoo.load_model(model, device="cpu").encoder.visual
    if not isinstance(tower, AttentionPoolTower):
        raise UsageError(
            f"--attention is for a model with an attention_pool tower; {model} has a {type(tower).__name__}: "
            'train one with init.visual.tower = "attention_pool"'
        )
    with torch.inference_mode():
        maps = tower.attention(prepare_views([clip.frames], spec, device=torch.device("cpu")))[0]
    return overlay_maps(clip, maps.numpy())
