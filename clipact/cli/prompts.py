"""`clipact prompts`: the words that labels become, looked at before and after a run."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clipact.cli.sweep import sweep
from clipact.cli.terminal import Device

if TYPE_CHECKING:
    from clipact.prompts import LabelSet, PromptSet

prompts = typer.Typer(
    help="Look at words: label sets, templates, what is odd about them, which score best.", no_args_is_help=True
)
prompts.command(no_args_is_help=True)(sweep)


@prompts.callback()
def _group() -> None:
    """Look at words: label sets, templates, what is odd about them, which score best."""


@prompts.command("list")
def list_sets(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a set and line.")] = False,
) -> None:
    """List the label sets and prompt sets that come with clipact; SET:TAG is the part of a label set with a tag.

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
        tags = sorted({tag for about in labels.about.values() for tag in about.tags})
        if as_json:
            said = {"kind": "labels", "name": name, "count": len(labels), "tags": tags, "title": labels.title}
            print(json.dumps(said | {"source": labels.source, "licence": labels.licence}, ensure_ascii=False))
        parts = f" ({', '.join(f':{tag}' for tag in tags)})" if tags else ""
        table.add_row(Text(name), f"{len(labels)} labels", Text(labels.title + parts))
    for name in set_names("templates"):
        chosen = PromptSet.load(name)
        if as_json:
            said = {"kind": "templates", "name": name, "count": len(chosen.templates), "title": chosen.title}
            print(json.dumps(said | {"source": chosen.source, "licence": chosen.licence}, ensure_ascii=False))
        count = len(chosen.templates)
        table.add_row(Text(name), f"{count} template{'' if count == 1 else 's'}", Text(chosen.title))
    if not as_json:
        Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 80).print(table)


@prompts.command(no_args_is_help=True)
def show(
    sets: Annotated[list[str], typer.Argument(metavar="SET|LABELS", help="Label sets, prompt sets, files, or words.")],
    templates: Annotated[
        str | None, typer.Option("--prompts", help="Put the labels into this prompt set, or a file of one.")
    ] = None,
) -> None:
    """Show what a label set or a prompt set holds, as it will be read: each label beside its sentences.

    clipact prompts show daily-living action

    clipact prompts show drink,UseLaptop --prompts clip-ucf101

    clipact prompts show my-labels.toml my-templates.toml
    """
    from pathlib import Path

    from clipact.prompts import PromptSet, holds_templates, parse_labels
    from clipact.prompts.label_set import names_a_file

    for name in sets:
        if holds_templates(name):
            _show_templates(PromptSet.load(name))
        else:
            labels = parse_labels([f"@{name}" if names_a_file(name) or Path(name).is_file() else name])
            _show_labels(labels, templates and PromptSet.load(templates))


def _show_templates(prompts: "PromptSet") -> None:
    wording = prompts.wording
    print(f"{prompts.name}: {prompts.title}".rstrip(": "))
    if prompts.source:
        print(f"source: {prompts.source}")
    print(
        f"said of a label: {', '.join(wording.words)}; pooled: {wording.over_templates}, {wording.over_words} of words"
    )
    for number, template in enumerate(prompts.templates):
        print(f"  {template.text}{f'  (weight {prompts.weights[number]:g})' if prompts.weights else ''}")


def _show_labels(labels: "LabelSet", prompts: "PromptSet | str | None") -> None:
    from clipact.prompts import LabelDetails, PromptSet

    if labels.title:
        print(f"{labels.name}: {labels.title}\nsource: {labels.source}")
    filled = prompts.fill(labels) if isinstance(prompts, PromptSet) else []
    for number, label in enumerate(labels.labels):
        about = labels.about.get(label, LabelDetails())
        print(f"{label}: A person is {labels.phrases[number]}.")
        kinds = (("part of", (about.parent,) if about.parent else ()), ("tags", about.tags))
        for what, said in (("also", about.synonyms), ("seen", about.descriptions), *kinds):
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
    device: Device = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a warning, or a closest pair, and line.")
    ] = False,
) -> None:
    """Warn of labels that will go wrong, before a run: alike to the model, cut, stuck together, ambiguous, or in need
    of an order of frames that the model does not see. Always exit code 0: a warning is no error.

    clipact prompts lint ntu120

    clipact prompts lint "put on hat,take off hat,drink" --model open_clip:ViT-B-32/openai
    """
    from dataclasses import asdict

    from clipact.cli.terminal import note
    from clipact.models.zoo import load_model
    from clipact.prompts import PromptSet, parse_labels
    from clipact.studies import ADVICE, lint

    label_set = parse_labels(labels)
    found = lint(label_set, PromptSet.load(templates), load_model(model, device=device))
    if as_json:
        for warning in found.warnings:
            print(json.dumps(asdict(warning) | {"advice": ADVICE[warning.kind]}, ensure_ascii=False))
        for one, other, alike in found.closest:
            print(json.dumps({"kind": "closest pair", "labels": [one, other], "similarity": alike}, ensure_ascii=False))
    else:
        for kind, advice in ADVICE.items():
            warnings = [warning for warning in found.warnings if warning.kind == kind]
            if warnings:
                print(f"{kind} ({len(warnings)}): {advice}")
            for warning in warnings:
                print(f"    {' | '.join(map(_short, warning.labels))}\n        {warning.message}")
        if found.closest:
            print(f"closest pairs of {len(label_set)} labels for {model}")
            for one, other, alike in found.closest:
                print(f"    {alike:.3f}  {_short(one)} | {_short(other)}")
    count = len(found.warnings)
    note(f"{count} warning{'' if count == 1 else 's'}" if count else "no warnings")


def _short(label: str) -> str:
    return label if len(label) <= 60 else f"{label[:59]}…"
