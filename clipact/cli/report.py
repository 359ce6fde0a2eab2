"""`clipact report`: results of evaluations as one page."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT", help="Folders that `clipact eval` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
    data: Annotated[
        Path | None, typer.Option(help="The folder of the data: shows pictures of what was confused.")
    ] = None,
) -> None:
    """Make one HTML file of results: figures with intervals, confusions, reliability, failures, how to repeat it.

    clipact report results/weizmann--mini --data DIR --out weizmann.html

    Several results stand side by side, with paired tests where they are of the same samples. The file needs nothing
    else: send it, print it, open it on a phone.
    """
    from clipact.cli.terminal import note
    from clipact.errors import UsageError
    from clipact.evaluate.results import load_result
    from clipact.report import write_page

    if data is not None and not data.is_dir():
        raise UsageError(f"--data: there is no folder {data}")
    page = write_page([load_result(folder) for folder in results], out, data=data)
    if data is not None and "data:image/jpeg" not in page.read_text(encoding="utf-8"):
        note(f"no picture was found below {data}: --data is the folder that `clipact eval` was given")
    print(page)
