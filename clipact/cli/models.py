"""`clipact models`: list, show and interpolate models."""

import json
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from clipact.clip_spec import ClipSpec

models = typer.Typer(help="List, show and interpolate models.", no_args_is_help=True)


@models.command("list")
def list_models(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="Where to look; by default here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> None:
    """List the models on this machine: mini, those in folders, and those that a hub's cache holds.

    clipact models list runs

    Nothing is fetched. A model that is not here can be named all the same: clipact classify --help tells how.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from clipact.cli.terminal import note
    from clipact.models.local_models import find_models

    found, wrong = find_models(folders or [Path()])
    for cause in wrong:
        note(cause, kind="warning")
    if as_json:
        rows = [{**vars(model), "path": str(model.path), "trained_on": list(model.trained_on)} for model in found]
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("MB", justify="right")
    for column in ("input", "trained on", "licence"):
        table.add_column(column, overflow="fold")
    for model in found:
        trained_on = ", ".join(model.trained_on) or "not known"
        cells = (model.name, f"{model.megabytes:.0f}", model.input, trained_on, model.license or "see its card")
        table.add_row(*(Text(_printable(cell)) for cell in cells))
    Console().print(table)


@models.command(no_args_is_help=True)
def show(
    name: Annotated[str, typer.Argument(help="As --model takes it.")],
    frames: Annotated[int | None, typer.Option(min=1, help="Frames a clip; by default the model's own.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show a model's towers, its inputs, and what encoding a clip costs, counted and measured here.

    clipact models show mini

    clipact models show runs/vivit/best --frames 16
    """
    from clipact.config import to_table
    from clipact.models import zoo
    from clipact.models.profile import count_parameters, profile_model
    from clipact.models.towers import describe

    model = zoo.load_model(name, device=device, precision="auto")
    encoder = model.encoder
    spec = encoder.spec.with_frames(frames)
    profile, counts = profile_model(encoder, spec=spec), count_parameters(encoder)
    place = str(encoder.log_scale.device)
    visual, prompted = describe(encoder.visual), encoder.text_depends_on_video
    towers = {
        "visual": [
            visual["tower"],
            *([visual["image"]["tower"]] if "image" in visual else []),
            *filter(None, [visual.get("aggregator")]),
        ],
        "text": [describe(encoder.text)["tower"]],
    }
    facts = {
        "name": model.name,
        "key": model.key,
        "trained_on": list(model.trained_on),
        "license": model.license,
        "towers": towers,
        "parameters": counts,
        "dim": encoder.dim,
        "scale": round(encoder.scale.item(), 4),
        "bias": None if encoder.bias is None else round(encoder.bias.item(), 4),
        "order_free": encoder.visual.order_free,
        "text_depends_on_video": prompted,
        "clip": to_table(spec),
        "device": place,
        "precision": encoder.precision,
        "gflops_a_clip": round(profile.gflops, 3),
        "milliseconds_a_clip": round(profile.milliseconds, 1),
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    order = "no: any order of the frames gives the same" if encoder.visual.order_free else "yes"
    sentence = (
        "gets an embedding that depends on the clip: not cached, indexed or trained"
        if prompted
        else "has an embedding of its own"
    )
    if model.labels:
        more = ", ..." if len(model.labels) > 8 else ""
        sentence = f"is one of {len(model.labels)} labels: {', '.join(model.labels[:8])}{more}"
    lines = {
        "model": model.name,
        "trained on": ", ".join(model.trained_on) or "not known",
        "licence": model.license or "see its card",
        "towers": " + ".join(f"{', '.join(names)} ({side})" for side, names in towers.items()),
        "parameters": " + ".join(f"{count / 1e6:.1f} M {tower}" for tower, count in counts.items()),
        "embedding": f"{encoder.dim} numbers, scale {encoder.scale.item():.1f}",
        "sees order": order,
        "a sentence": sentence,
        **_clip_lines(spec),
        "mean, std": " ".join(f"{one:.3f}" for one in spec.mean) + ", " + " ".join(f"{one:.3f}" for one in spec.std),
        "a clip costs": f"{profile.gflops:.1f} GFLOPs, {profile.milliseconds:.0f} ms on {place} in {encoder.precision}",
    }
    for title, text in lines.items():
        wrap = textwrap.TextWrapper(80, break_long_words=False, break_on_hyphens=False)  # a path can be copied whole
        wrap.initial_indent, wrap.subsequent_indent = f"{title:<13} ", " " * 14
        print(wrap.fill(_printable(text)))


def _printable(text: str) -> str:
    """Drop what would move a terminal's cursor."""
    return "".join(filter(str.isprintable, text))


def _clip_lines(spec: ClipSpec) -> dict[str, str]:
    """How clips are prepared, for people: everything that a ClipSpec holds but its normalisation."""
    sampling = {
        "strided": f"strided by {spec.stride}",
        "strided_by_number": f"strided by {spec.stride}, by number",
        "fps": f"at {spec.rate_fps:g} frames a second",
    }
    side = spec.shorter_side_pixels
    resize = {
        "shortest": ("shorter side to " + (f"{side} pixels" if side else "fit"))
        + f", centre crop rounded {'down' if spec.crop_rounding == 'down' else 'to even'}",
        "squash": "squash, the aspect ratio is lost",
        "longest": f"longer side to fit, the rest filled with {spec.fill}",
    }
    height, width = spec.size
    return {
        "clip": f"{spec.frames} frames, {sampling.get(spec.sampling, spec.sampling)}, {height} x {width} pixels",
        "resize": f"{resize[spec.resize]}; {spec.interpolation}",
    }


@models.command(no_args_is_help=True)
def interpolate(
    first: Annotated[str, typer.Argument(help="mini or a folder: the weights at alpha 0.")],
    second: Annotated[str, typer.Argument(help="A folder of the same build: the weights at alpha 1.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new model's folder.")],
    alpha: Annotated[float, typer.Option(min=0, max=1, help="How far to go from the first to the second.")] = 0.5,
) -> None:
    """Interpolate the weights of two models, and write the model that results (WiSE-FT).

    clipact models interpolate mini tuned/best --alpha 0.3 --out between
    """
    from clipact.cli.terminal import note
    from clipact.errors import UsageError
    from clipact.models.checkpoint import checkpoint_folder
    from clipact.train.averaging import interpolate_models

    def folder_of(name: str) -> Path:
        if (folder := checkpoint_folder(name)) is None:
            raise UsageError(f"{name!r} is no folder: only models in folders can be interpolated")
        return folder

    print(interpolate_models(folder_of(first), folder_of(second), out, alpha=alpha))
    note(f"try it: clipact classify video.mp4 --labels drink,read --model {out}")
