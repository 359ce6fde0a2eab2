"""The `clipact` command: which commands there are, and how every error reaches the person who typed it."""

import atexit
import errno
import gc
import io
import os
import sys
import warnings
from typing import Annotated

import typer

from clipact import __version__
from clipact.cli.cache import cache
from clipact.cli.calibrate import calibrate
from clipact.cli.classify import classify
from clipact.cli.compare import compare
from clipact.cli.data import data
from clipact.cli.embed import embed
from clipact.cli.eval import HELP as EVAL_HELP
from clipact.cli.eval import evaluate
from clipact.cli.frames import frames
from clipact.cli.index import index
from clipact.cli.info import info
from clipact.cli.models import models
from clipact.cli.pretrain import pretrain
from clipact.cli.prompts import prompts
from clipact.cli.report import report
from clipact.cli.terminal import note
from clipact.cli.train import train
from clipact.errors import ClipactError

app = typer.Typer(
    name="clipact",
    help="Recognise human actions in video from plain words.\n\nTry:  clipact classify video.mp4 --labels drink,read",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Options that stand before any command."""
    if version:
        print(f"clipact {__version__}")
        raise typer.Exit


app.command(no_args_is_help=True)(classify)
app.command(no_args_is_help=True)(embed)
app.command(no_args_is_help=True)(train)
app.command(no_args_is_help=True)(pretrain)
app.command("eval", no_args_is_help=True, help=EVAL_HELP)(evaluate)
app.command(no_args_is_help=True)(compare)
app.command(no_args_is_help=True)(calibrate)
app.command(no_args_is_help=True)(info)
app.command(no_args_is_help=True)(frames)
app.command(no_args_is_help=True)(report)
app.add_typer(cache, name="cache")
app.add_typer(data, name="data")
app.add_typer(index, name="index")
app.add_typer(models, name="models")
app.add_typer(prompts, name="prompts")


def main() -> None:
    """Run the command line and exit: 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""
    atexit.register(gc.freeze)  # else Python looks through all that torch made once more: 0.3 s
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a bar that cannot be written in ASCII is no reason to fail
            stream.reconfigure(errors="replace")
    warnings.filterwarnings("ignore", module=r"PIL\b")  # of files that are read all the same
    warnings.showwarning = lambda message, *_, **__: note(str(message))
    try:
        app()
    except ClipactError as error:
        note(str(error), kind="error")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        note("interrupted", kind="error")
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        if error.errno != errno.EPIPE:  # where the reader of a pipe has gone, nothing is wrong
            note("the disk is full: not all of the output was written", kind="error")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left has nowhere to go
        sys.exit(1)


if __name__ == "__main__":
    main()
