"""`clipact pretrain`: unlabelled clips become a visual tower that `clipact train` begins from."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, such as eval/recipes/videomae-small.toml.")],
    data: Annotated[Path, typer.Option("--data", help="The folder that the recipe's clips lie below.")] = Path(),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's folder.  [default: runs/ and the recipe's name]")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: mask.ratio=0.95. Repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log for TensorBoard, too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Teach a video transformer without words: it fills in what is masked of clips (VideoMAE; MAE for pictures).

    clipact pretrain eval/recipes/videomae-small.toml --data ~/data --out runs/videomae

    Each time that it is judged, held-out clips say how much of the masked pixels it predicts (0 % is as good as each
    patch's mean), and OUT/pictures shows some of them. OUT/best and OUT/last are visual towers without words; a recipe
    of clipact train begins from one by start.visual.tower = "vivit" and start.parts.visual = "runs/videomae/best".

    Ctrl-C saves the run after the step at hand; --resume goes on with it as if nothing had happened.
    """
    from clipact.cli.screen import note
    from clipact.cli.train_screen import TrainScreen
    from clipact.training.outline import load_recipe
    from clipact.training.pretrain import Pretraining, PretrainRecipe
    from clipact.zoo import pick_device

    table = load_recipe(recipe, PretrainRecipe, changes=changes or ())
    out = out or Path("runs") / table.name
    with TrainScreen() as screen:
        run = Pretraining(table, data=data, device=pick_device(device))
        screen.follow(run, run.train(out, resume=resume, tensorboard=tensorboard))
    if run.stopping:
        words = [word for word in sys.argv[1:] if word != "--resume"]
        note(f"stopped after step {run.progress.step}; go on with: {shlex.join(['clipact', *words, '--resume'])}")
        raise typer.Exit(130)
    print(out / "best")
    best, name = run.progress.best or 0.0, table.judge.sets[0].name
    verdict = f"better than each patch's mean by {best:.1%} of the variance" if best > 0 else "no better than the mean"
    note(f"best at step {run.progress.best_step}: masked pixels of {name} are predicted {verdict}")
    note(f'begin from it: start.visual.tower = "vivit" and start.parts.visual = "{out / "best"}" in a recipe')
