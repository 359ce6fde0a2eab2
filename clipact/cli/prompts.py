"""`clipact prompts`: the words that labels become, looked at before and after a run."""

import json
import sys
from typing import Annotated

import typer

from clipact.cli.sweep import sweep

prompts = typer.Typer(
    help="Look at words: label sets, templates, what is odd about them, which score best.", no_args_is_help=True
)
prompts.command(no_args_is_help=True)(sweep)


@prompts.callback()
def _group() -> None:
    """Look at words: label sets, templates, what is odd about them, which score best."""


@prompts.command("list")
def list_sets() -> None:
    """List the label sets and prompt sets that come with clipact.

    clipact prompts list
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from clipact.prompts import LabelSet, PromptSet, set_names

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("name", "", "what"):
        table.add_column(title, overflow="fold")
    for name in set_names("labels"):
        labels = LabelSet.load(name)
        table.add_row(Text(name), f"{len(labels)} labels", Text(labels.title))
    for name in set_names("templates"):
        templates = PromptSet.load(name)
        table.add_row(Text(name), f"{len(templates.templates)} templates", Text(templates.title))
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 100).print(table)


@prompts.command(no_args_is_help=True)
def show(
    sets: Annotated[list[str], typer.Argument(metavar="SET|LABELS", help="Label sets, prompt sets, files, or words.")],
    templates: Annotated[str | None, typer.Option("--prompts", help="Put the labels into this prompt set.")] = None,
) -> None:
    """Show what a label set or a prompt set holds, as it will be read: each label beside its sentences.

    clipact prompts show daily-living

    clipact prompts show drink,UseLaptop --prompts clip-ucf101
    """
    from pathlib import Path

    from clipact.prompts import PromptSet, parse_labels, set_names

    for name in sets:
        if name in set_names("templates"):
            chosen = PromptSet.load(name)
            print(f"{chosen.name}: {chosen.title}\nsource: {chosen.source}")
            for template in chosen.templates:
                print(f"  {template.text}")
            continue
        labels = parse_labels([f"@{name}" if Path(name).is_file() else name])
        if labels.title:
            print(f"{labels.name}: {labels.title}\nsource: {labels.source}")
        filled = [] if templates is None else PromptSet.load(templates).fill(labels)
        for number, label in enumerate(labels.labels):
            about = labels.about.get(label)
            print(f"{label}: A person is {labels.phrases[number]}.")
            for what, said in (("also", about and about.synonyms), ("seen", about and about.descriptions)):
                if said:
                    print(f"    {what}: {'; '.join(said)}")
            for prompt in filled:
                if prompt.label == number:
                    print(f"    {prompt.text}")


@prompts.command(no_args_is_help=True)
def lint(
    labels: Annotated[list[str], typer.Argument(metavar="LABELS", help="drink,read or @file.txt or a shipped set.")],
    model: Annotated[str, typer.Option("--model", "-m", envvar="CLIPACT_MODEL", help="As for classify.")] = "mini",
    templates: Annotated[str, typer.Option("--prompts", help="The sentences into which labels are put.")] = "action",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a doubt and line.")] = False,
) -> None:
    """Warn of labels that will go wrong, before a run: alike to the model, cut, stuck together, ambiguous, or in need
    of an order of frames that the model does not see. Always exit code 0: a doubt is no error.

    clipact prompts lint ntu120

    clipact prompts lint "put on hat,take off hat,drink" --model open_clip:ViT-B-32/openai
    """
    from dataclasses import asdict

    from clipact.cli.screen import note
    from clipact.prompts import PromptSet, parse_labels
    from clipact.studies import lint
    from clipact.zoo import load

    label_set = parse_labels(labels)
    found = lint(label_set, PromptSet.load(templates), load(model, device=device))
    for doubt in found.doubts:
        if as_json:
            print(json.dumps(asdict(doubt), ensure_ascii=False))
        else:
            print(f"{doubt.kind}: {' | '.join(doubt.labels)}\n    {doubt.said}")
    if found.closest:
        shown = "; ".join(f"{one} | {other} {alike:.3f}" for one, other, alike in found.closest)
        note(f"closest pairs of {len(label_set)} labels for {model}: {shown}")
    note(f"{len(found.doubts)} doubts" if found.doubts else "no doubts")
