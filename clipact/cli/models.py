"""`clipact models`: what can be done with models that are there."""

from pathlib import Path
from typing import Annotated

import typer

models = typer.Typer(help="Work with models that are there.", no_args_is_help=True)


@models.callback()
def _group() -> None:
    """Work with models that are there."""


@models.command(no_args_is_help=True)
def blend(
    first: Annotated[str, typer.Argument(help="mini or a folder: the weights at alpha 0.")],
    second: Annotated[str, typer.Argument(help="A folder of the same build: the weights at alpha 1.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new model's folder.")],
    alpha: Annotated[float, typer.Option(min=0, max=1, help="How far to go from the first to the second.")] = 0.5,
) -> None:
    """Write the model that lies between two others, weight by weight (WiSE-FT).

    clipact models blend mini tuned/best --alpha 0.3 --out blended
    """
    from clipact.cli.screen import note
    from clipact.errors import UsageError
    from clipact.model_config import checkpoint_folder
    from clipact.training.blend import blend as blend_models

    def folder_of(name: str) -> Path:
        if (folder := checkpoint_folder(name)) is None:
            raise UsageError(f"{name!r} is no folder: only models in folders can be blended")
        return folder

    print(blend_models(folder_of(first), folder_of(second), out, alpha=alpha))
    note(f"try it: clipact classify video.mp4 --labels drink,read --model {out}")
