"""`clipact index`: labels and captions by the million, built once, searched at once."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipact.cli.terminal import Device, ModelName, PrecisionOption

if TYPE_CHECKING:
    from clipact.label_index import LabelIndex
    from clipact.models.zoo import Model
    from clipact.prompts import PromptSet

index = typer.Typer(help="Build, change and search indexes of labels or captions.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An index's folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
Prompts = Annotated[
    str | None,
    typer.Option(
        show_default="action for labels, none for captions",
        help="The sentences into which labels are put; none: each text is a sentence.",
    ),
]


@index.command(no_args_is_help=True)
def build(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A label set, a file (.txt, .csv, .jsonl), or - for standard input.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The index's folder.")],
    model: ModelName = "mini",
    prompts: Prompts = None,
    kind: Annotated[str | None, typer.Option(show_default="by count and memory", help="exact, hnsw or ivf-pq.")] = None,
    memory: Annotated[
        float | None, typer.Option(min=0.001, show_default="half of the machine's", help="Gigabytes for a search.")
    ] = None,
    recall: Annotated[float, typer.Option(min=0.01, max=1, help="The recall@10 wanted of an approximation.")] = 0.95,
    half: Annotated[bool, typer.Option("--half", help="Keep vectors in 16 bits: half the disk.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a build that was stopped.")] = False,
    device: Device = "auto",
) -> None:
    """Encode labels or captions once, and keep them so that the nearest to a clip are found at once.

    clipact index build kinetics700 --out k700.index

    clipact index build captions.csv --out captions.index --model runs/best

    A .txt file has one label a line; a .csv or .jsonl file has label, caption or text, perhaps id, and whatever else
    is to be kept. Few vectors are all compared; more go into HNSW if it fits the memory, else into IVF-PQ.
    """
    from clipact.cli.index_screen import say_built, watch
    from clipact.cli.terminal import note
    from clipact.errors import UsageError, choices
    from clipact.label_index import IndexMetadata, IndexPlan
    from clipact.label_index import build as build_index
    from clipact.label_index.entry_sources import AS_THEY_ARE, read_entries, sentence_encoder, wording_of
    from clipact.models.zoo import load_model
    from clipact.prompts import PromptSet

    kinds = ("exact", "hnsw", "ivf-pq")
    if kind is not None and kind not in kinds:
        raise UsageError(f"--kind is {kind!r}; {choices(kind, kinds)}")
    vocabulary = read_entries(source)
    named = prompts or (AS_THEY_ARE if vocabulary.captions else "action")
    prompt_set = None if named == AS_THEY_ARE else PromptSet.load(named)
    if prompt_set is not None and vocabulary.says_more and prompt_set.wording.words != ("phrase",):
        note(f"an index holds the phrase of each label: the synonyms and descriptions of {source} are left out")
    loaded = load_model(model, device=device)
    about = IndexMetadata(
        model=loaded.name,
        model_key=loaded.key,
        wording=wording_of(prompt_set),
        dim=loaded.encoder.dim,
        precision="float16" if half else "float32",
    )
    plan = IndexPlan(kind=kind, memory_bytes=None if memory is None else round(memory * 1e9), recall=recall)  # type: ignore[arg-type]
    made = build_index(
        out,
        vocabulary.entries,
        sentence_encoder(loaded, vocabulary, prompt_set),
        about=about,
        plan=plan,
        resume=resume,
        watch=watch,
    )
    say_built(made)
    print(out)


@index.command(no_args_is_help=True)
def add(
    folder: Folder,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="As for build.")],
    model: ModelName = "mini",
    prompts: Annotated[
        str | None, typer.Option(show_default="the index's", help="Needed for a file's prompts.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Add labels or captions to an index, without building it again.

    clipact index add verbs.index more.txt
    """
    from clipact.cli.index_screen import watch
    from clipact.cli.terminal import note
    from clipact.label_index import LabelIndex
    from clipact.label_index import add as add_to
    from clipact.label_index.entry_sources import read_entries, sentence_encoder
    from clipact.models.zoo import load_model

    vocabulary = read_entries(source)
    loaded = load_model(model, device=device)
    prompt_set = _prompts_of(LabelIndex.open(folder, model_key=loaded.key), prompts)
    encode = sentence_encoder(loaded, vocabulary, prompt_set)
    change = add_to(folder, vocabulary.entries, encode, model_key=loaded.key, watch=watch)
    note(f"{change.added:,} added to {folder}; {change.repeats:,} were there already")


@index.command(no_args_is_help=True)
def remove(
    folder: Folder,
    ids: Annotated[
        list[str], typer.Argument(metavar="ID", help="Ids; a label's is the label, unless it was given one.")
    ],
) -> None:
    """Take entries out of an index: no search finds them any more.

    clipact index remove verbs.index "drink" "read"
    """
    from clipact.cli.terminal import note
    from clipact.label_index import remove as remove_from

    change = remove_from(folder, ids)
    note(f"{change.removed:,} removed from {folder}")


@index.command(no_args_is_help=True)
def query(
    folder: Folder,
    videos: Annotated[list[str] | None, typer.Argument(metavar="VIDEO", help="Videos, folders or patterns.")] = None,
    text: Annotated[list[str] | None, typer.Option("--text", "-t", help="A sentence instead. Repeatable.")] = None,
    k: Annotated[int, typer.Option("--top", min=1, help="How many neighbours.")] = 5,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every entry.")] = False,
    model: ModelName = "mini",
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a query and line.")] = False,
) -> None:
    """Find the entries nearest to videos or sentences, with their cosines.

    clipact index query captions.index video.mp4

    clipact index query captions.index --text "a dog catches a ball"
    """
    from clipact.cache import Cache
    from clipact.cli.index_screen import show_neighbours
    from clipact.cli.terminal import expand_videos, note, track
    from clipact.errors import UsageError
    from clipact.label_index import LabelIndex
    from clipact.models.zoo import load_model
    from clipact.prompts import clean

    if not videos and not text:
        raise UsageError("nothing is asked: name videos, or sentences with --text")
    loaded = load_model(model, device=device, precision=precision, defer_text=True)
    opened = LabelIndex.open(folder, model_key=loaded.key, cache=Cache())
    paths = expand_videos(videos) if videos else []
    failed = 0
    asked = _vectors(loaded, paths, [clean(one) for one in text or ()])
    for name, vector in track(asked, total=len(paths) + len(text or ()), what="asking", prints=True):
        if isinstance(vector, Exception):
            failed += 1
            note(str(vector), kind="error")
            continue
        found = opened.search_exactly(vector, k).nearest if exact else opened.search(vector, k)
        pairs = list(zip(opened.entries(found.rows[0]), found.cosines[0].tolist(), strict=False))
        if as_json:
            near = [{"cosine": cosine, **vars(entry)} for entry, cosine in pairs]
            print(json.dumps({"query": name, "kind": opened.kind, "nearest": near}, ensure_ascii=False), flush=True)
        else:
            show_neighbours(name, pairs)
    if failed:
        raise typer.Exit(1)


@index.command(no_args_is_help=True)
def info(
    folder: Folder,
    measure: Annotated[
        int | None,
        typer.Option(
            min=1, show_default="what was measured when it was built", help="Measure anew with so many queries."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what an index holds, and what its approximation costs: recall@1 and @10 against an exact search.

    clipact index info captions.index
    """
    from clipact.cli.index_screen import index_facts, index_lines
    from clipact.label_index import LabelIndex, measure_quality
    from clipact.label_index.quality import OWN_ROWS, sample_queries

    opened = LabelIndex.open(folder)
    quality = opened.table.quality
    if measure is not None and opened.kind != "exact":
        quality = measure_quality(opened, sample_queries(opened, count=measure, seed=1), source=OWN_ROWS)
    if as_json:
        print(json.dumps(index_facts(opened, quality), indent=2, ensure_ascii=False))
        return
    for title, said in index_lines(opened, quality).items():
        print(f"{title:<13} {said}")


def _prompts_of(opened: "LabelIndex", prompts: str | None) -> "PromptSet | None":
    """The prompt set that an index was built with; UsageError when the one that is named is another."""
    from clipact.errors import UsageError
    from clipact.label_index.entry_sources import AS_THEY_ARE, wording_of
    from clipact.prompts import PromptSet

    wording = opened.table.about.wording
    name = prompts or opened.table.about.prompts
    found = None if name == AS_THEY_ARE else PromptSet.load(name)
    if wording_of(found) != wording:
        raise UsageError(
            f"{opened.folder.path} was built with the prompts {opened.table.about.prompts!r}, "
            f"not with {name!r} as it is now"
        )
    return found


def _vectors(model: "Model", paths: list[str], sentences: list[str]) -> Iterable[tuple[str, Any]]:
    """Each query's name and unit vector (1, d), or the error that stands in its place."""
    import torch

    from clipact.classify.base import frames_of
    from clipact.embed.clip_embedding import embed_views, mean_view
    from clipact.embed.prefetch import decode_ahead

    for decoded in decode_ahead(paths, model.encoder.spec):
        if decoded.error is not None:
            yield decoded.source, decoded.error
        else:
            views = embed_views(model.encoder, frames_of(decoded), model.encoder.spec)
            yield decoded.source, mean_view(views).float().cpu().numpy()
    for sentence in sentences:
        with torch.inference_mode():
            yield sentence, model.encoder.encode_text([sentence]).float().cpu().numpy()
