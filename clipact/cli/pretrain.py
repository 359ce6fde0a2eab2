"""`clipact pretrain`: train a visual tower on unlabelled clips, for `clipact train` to begin from."""

from pathlib import Path
from typing import Annotated

import typer

from clipact.cli.terminal import Device, Resume, RunFolder, Tensorboard


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, such as eval/recipes/videomae-small.toml.")],
    data: Annotated[Path, typer.Option("--data", help="The folder that the recipe's clips lie below.")] = Path(),
    out: RunFolder = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: mask.ratio=0.95. Repeatable.")
    ] = None,
    resume: Resume = False,
    tensorboard: Tensorboard = False,
    device: Device = "auto",
) -> None:
    """Pretrain a video transformer without labels: it predicts masked patches of clips (VideoMAE; MAE for pictures).

    clipact pretrain eval/recipes/videomae-small.toml --data ~/data --out runs/videomae

    Each time that it is validated, held-out clips say how much of the masked pixels it predicts (0 % is as good as each
    patch's mean), and OUT/pictures shows some of them. OUT/best and OUT/last are visual towers without words; a recipe
    of clipact train begins from one by init.visual.tower = "vivit" and init.pretrained.visual = "runs/videomae/best".

    Ctrl-C saves the run after the step at hand; --resume goes on with it as if nothing had happened.
    """
    from clipact.cli.terminal import note
    from clipact.cli.train import TrainScreen, leave_if_stopped
    from clipact.models.zoo import pick_device
    from clipact.train.masked import MaskedTrainer, PretrainRecipe
    from clipact.train.recipe import load_recipe

    table = load_recipe(recipe, PretrainRecipe, changes=changes or ())
    out = out or Path("runs") / table.name
    with TrainScreen() as screen:
        trainer = MaskedTrainer(table, data=data, device=pick_device(device))
        screen.follow(trainer, trainer.train(out, resume=resume, tensorboard=tensorboard))
    leave_if_stopped(trainer)
    print(out / "best")
    best, name = trainer.run_progress.best or 0.0, table.validation.sets[0].name
    verdict = f"better than each patch's mean by {best:.1%} of the variance" if best > 0 else "no better than the mean"
    note(f"best at step {trainer.run_progress.best_step}: masked pixels of {name} are predicted {verdict}")
    note(f'begin from it: init.visual.tower = "vivit" and init.pretrained.visual = "{out / "best"}" in a recipe')
