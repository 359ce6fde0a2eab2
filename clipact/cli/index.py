"""`clipact index`: build, change and search an index of labels or captions."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipact.cli.terminal import Device, ModelName, PrecisionOption, Resume, note

if TYPE_CHECKING:
    from clipact.embed.options import EmbedOptions
    from clipact.label_index import IndexEntry, IndexQuality, LabelIndex
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
    float16: Annotated[bool, typer.Option("--float16", help="Keep vectors in 16 bits: half the disk.")] = False,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Encode labels or captions once, and keep them so that the nearest to a clip are found at once.

    clipact index build kinetics700 --out k700.index

    clipact index build captions.csv --out captions.index --model runs/best

    A .txt file has one label a line; a .csv or .jsonl file has label, caption or text, perhaps id, and whatever else
    is to be kept. Few vectors are all compared; more go into HNSW if it fits the memory, else into IVF-PQ.
    """
    from clipact.cli.terminal import show_progress
    from clipact.errors import UsageError, choices
    from clipact.label_index import IndexMetadata, IndexPlan, build_index
    from clipact.label_index.entry_sources import NO_PROMPTS, describe_wording, read_entries, sentence_encoder
    from clipact.models.zoo import load_model
    from clipact.prompts import PromptSet

    kinds = ("exact", "hnsw", "ivf-pq")
    if kind is not None and kind not in kinds:
        raise UsageError(f"--kind is {kind!r}; {choices(kind, kinds)}")
    vocabulary = read_entries(source)
    named = prompts or (NO_PROMPTS if vocabulary.captions else "action")
    prompt_set = None if named == NO_PROMPTS else PromptSet.load(named)
    if prompt_set is not None and vocabulary.has_more_words and prompt_set.wording.words != ("phrase",):
        note(f"an index holds the phrase of each label: the synonyms and descriptions of {source} are left out")
    loaded = load_model(model, device=device)
    metadata = IndexMetadata(
        model=loaded.name,
        model_key=loaded.key,
        wording=describe_wording(prompt_set),
        dim=loaded.encoder.dim,
        precision="float16" if float16 else "float32",
    )
    plan = IndexPlan(kind=kind, memory_bytes=None if memory is None else round(memory * 1e9), recall=recall)  # type: ignore[arg-type]
    made = build_index(
        out,
        vocabulary.entries,
        sentence_encoder(loaded, vocabulary, prompt_set),
        metadata=metadata,
        plan=plan,
        resume=resume,
        progress=show_progress,
    )
    _note_built(made)
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
    from clipact.cli.terminal import show_progress
    from clipact.label_index import LabelIndex, add_entries
    from clipact.label_index.entry_sources import read_entries, sentence_encoder
    from clipact.models.zoo import load_model

    vocabulary = read_entries(source)
    loaded = load_model(model, device=device)
    prompt_set = _prompts_of(LabelIndex.open(folder, model_key=loaded.key), prompts)
    encode = sentence_encoder(loaded, vocabulary, prompt_set)
    change = add_entries(folder, vocabulary.entries, encode, model_key=loaded.key, progress=show_progress)
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
    from clipact.label_index import remove_entries

    change = remove_entries(folder, ids)
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
    from clipact.cli.terminal import show_video_progress, track
    from clipact.embed.named_videos import expand_videos
    from clipact.embed.options import EmbedOptions
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
    options = EmbedOptions(
        cache=Cache(),
        progress=lambda items, total, what: track(items, total=total, what=what, prints=True),
        video_progress=show_video_progress,
    )
    for name, vector in _vectors(loaded, paths, [clean(one) for one in text or ()], options):
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
            _print_neighbours(name, pairs)
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
    from clipact.label_index import LabelIndex, measure_quality
    from clipact.label_index.faiss_build import OWN_ROWS, sample_queries

    opened = LabelIndex.open(folder)
    quality = opened.manifest.quality
    if measure is not None and opened.kind != "exact":
        quality = measure_quality(opened, sample_queries(opened, count=measure, seed=1), source=OWN_ROWS)
    if as_json:
        print(json.dumps(_index_facts(opened, quality), indent=2, ensure_ascii=False))
        return
    for title, said in _index_lines(opened, quality).items():
        print(f"{title:<13} {said}")


def _prompts_of(opened: "LabelIndex", prompts: str | None) -> "PromptSet | None":
    """The prompt set that an index was built with; UsageError when the one that is named is another."""
    from clipact.errors import UsageError
    from clipact.label_index.entry_sources import NO_PROMPTS, describe_wording
    from clipact.prompts import PromptSet

    wording = opened.manifest.metadata.wording
    name = prompts or opened.manifest.metadata.prompts
    found = None if name == NO_PROMPTS else PromptSet.load(name)
    if describe_wording(found) != wording:
        raise UsageError(
            f"{opened.folder.path} was built with the prompts {opened.manifest.metadata.prompts!r}, "
            f"not with {name!r} as it is now"
        )
    return found


def _vectors(
    model: "Model", paths: list[str], sentences: list[str], options: "EmbedOptions"
) -> "Iterator[tuple[str, Any]]":
    """Each query's name and unit vector (1, d), or the error that stands in its place."""
    from clipact.embed.clip_source import ClipSource
    from clipact.embed.embed_clips import EmbedRequest, embed_clips

    rows = [ClipSource(source=path, name=path) for path in paths]
    for found in embed_clips(rows, EmbedRequest(encoder=model.clip_encoder(), keep_clips=False), options):
        yield found.name, found.error or found.embeddings
    for sentence in sentences:
        yield sentence, model.encode_text([sentence])


def _note_built(made: "LabelIndex") -> None:
    """Note what a build gave, and whether the recall that was wanted was reached."""
    progress, manifest = made.manifest.progress, made.manifest
    note(f"{len(made):,} entries" + (f"; {progress.repeats:,} repeated one of them" if progress.repeats else ""))
    if manifest.faiss is None:
        note("every entry is compared: no approximation")
        return
    quality = manifest.quality
    assert quality is not None
    faiss = manifest.faiss
    note(f"{faiss.kind} {faiss.factory}: recall@10 {quality.recall_10:.1%} at search effort {faiss.search_effort}")
    if quality.recall_10 < manifest.plan.recall:
        note(
            f"the recall of {manifest.plan.recall:.0%} was not reached; --kind hnsw or exact finds more", kind="warning"
        )


def _index_facts(opened: "LabelIndex", quality: "IndexQuality | None") -> dict[str, Any]:
    """What an index holds, for machines."""
    manifest, metadata = opened.manifest, opened.manifest.metadata
    return {
        "folder": str(opened.folder.path),
        "entries": len(opened),
        "removed": manifest.removed_rows,
        "kind": opened.kind,
        "factory": manifest.faiss and manifest.faiss.factory,
        "search_effort": manifest.faiss and manifest.faiss.search_effort,
        "compared_one_by_one": _one_by_one(opened),
        "dim": metadata.dim,
        "precision": metadata.precision,
        "model": metadata.model,
        "model_key": metadata.model_key,
        "prompts": metadata.prompts,
        "bytes": _bytes(opened),
        "quality": quality and vars(quality),
    }


def _index_lines(opened: "LabelIndex", quality: "IndexQuality | None") -> dict[str, str]:
    """The same for people: what is said, by its title."""
    manifest, metadata = opened.manifest, opened.manifest.metadata
    lines = {
        "entries": f"{len(opened):,}" + (f", and {manifest.removed_rows:,} removed" if manifest.removed_rows else ""),
        "vectors": f"{metadata.dim} numbers in {metadata.precision.removeprefix('float')} bits",
        "on disk": f"{_bytes(opened) / 1e6:,.1f} MB, every file as its hash says",
        "model": f"{metadata.model} ({metadata.model_key[:12]}…)",
        "prompts": metadata.prompts,
        "search": "exact: every entry is compared",
    }
    if manifest.faiss is not None:
        lines["search"] = (
            f"{manifest.faiss.kind}, {manifest.faiss.factory}, search effort {manifest.faiss.search_effort}"
        )
        if tail := _one_by_one(opened):
            lines["search"] += f"; {tail:,} added since are compared one by one"
    if quality is not None:
        lines["recall@1"] = f"{quality.recall_1:.1%} of an exact search's"
        lines["recall@10"] = f"{quality.recall_10:.1%}"
        lines["first answer"] = f"changed by the approximation in {quality.first_changed:.1%}"
        lines["measured"] = f"with {quality.queries:,} queries among {quality.rows:,}: {quality.source}"
    return lines


def _print_neighbours(name: str, pairs: "Sequence[tuple[IndexEntry, float]]") -> None:
    """Print the entries nearest to a query, with their cosines."""
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for number, (entry, cosine) in enumerate(pairs):
        table.add_row(f"{cosine:.3f}", Text(entry.text, style="bold green" if number == 0 else ""))
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 80)
    console.print(Text(name, style="bold"), table, "")


def _one_by_one(opened: "LabelIndex") -> int:
    manifest = opened.manifest
    return manifest.rows - (manifest.faiss.rows if manifest.faiss else 0)


def _bytes(opened: "LabelIndex") -> int:
    return sum(record.bytes for record in opened.manifest.files)
