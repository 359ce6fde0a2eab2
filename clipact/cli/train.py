"""`clipact train`: a recipe and a folder of data become a model."""

from pathlib import Path
from typing import Annotated

import typer

from clipact.cli.inputs import Device, Resume, RunFolder, Tensorboard


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file: what is learnt from, and what learns.")],
    data: Annotated[Path, typer.Option("--data", help="The folder that the recipe's manifests lie below.")] = Path(),
    out: RunFolder = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: train.batch=512. Repeatable.")
    ] = None,
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    verify_grad: Annotated[
        bool, typer.Option("--verify-grad", help="Compare the cached gradient with plain autograd's first.")
    ] = False,
    tensorboard: Tensorboard = False,
    device: Device = "auto",
) -> None:
    """Train a model as a recipe says, and write it as a folder.

    clipact train own.toml --data ~/clips --dry-run

    clipact train own.toml --data ~/clips --out runs/own --set train.batch=512

    \b
    A whole own.toml, which teaches mini a transformer over the frames:
        name = "own"
        trained_on = ["my clips"]
        start.model = "mini"
        start.visual = { tower = "frames", aggregator = "transformer" }
        data.sources = [{ manifest = "clips.csv", frames = 8 }]
        visual.learns = "head"
        text.learns = "nothing"
        train = { batch = 32, steps = 100 }

    clips.csv lies in --data, with the columns path and label (or caption), and
    split, start_seconds and end_seconds where they are wanted. The README's
    "Training on your own clips" has the other towers, ViViT and Video Swin among
    them; eval/recipes has whole recipes, vivit.toml for one.

    OUT/best and OUT/last are models. Ctrl-C saves the run after the step at hand;
    --resume goes on with it, and the weights come out as if nothing had happened.
    """
    from clipact.cli.screen import note
    from clipact.cli.train_screen import TrainScreen, leave_if_stopped, show_checks, show_plan
    from clipact.store import Store
    from clipact.training.loop import Run
    from clipact.training.outline import load_recipe
    from clipact.training.plan import plan_run, verify_run
    from clipact.training.recipe import Recipe
    from clipact.zoo import pick_device

    table = load_recipe(recipe, Recipe, changes=changes or ())
    out = out or Path("runs") / table.name
    with TrainScreen() as screen:
        run = Run(table, data=data, device=pick_device(device), store=Store(), watch=screen.watch)
        if verify_grad:
            show_checks(verify_run(run))
        if dry_run:
            show_plan(plan_run(run))
            return
        screen.follow(run, run.train(out, resume=resume, tensorboard=tensorboard))
    leave_if_stopped(run)
    model = out / ("best" if (out / "best").exists() else "last")
    print(model)
    asked = "" if table.start.labels_only else " --labels drink,read"
    note(f"try it: clipact classify video.mp4{asked} --model {model}")
