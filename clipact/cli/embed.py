"""`clipact embed`: the embeddings of many videos, as a Parquet file."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipact.cli.terminal import MACHINE, Device, ModelName, PrecisionOption, Resume, Threads, Workers
from clipact.errors import UsageError

if TYPE_CHECKING:
    pass

_NAMED = 20


def embed(
    videos: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEO|TABLE",
            help="Files, folders of them, patterns, @videos.txt (one a line); or a CSV table with path, and perhaps "
            "start_seconds and end_seconds.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The Parquet file.")],
    model: ModelName = "mini",
    frames: Annotated[
        bool, typer.Option("--frames", help="A row a frame, with the features of the visual backbone.")
    ] = False,
    clips: Annotated[int, typer.Option(min=1, help="Clips a video, spread over it and averaged.")] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Prepare clips otherwise: frames=16, size=[64,64], sampling=uniform. Repeatable."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", show_default="the table's own", help="Where a table's paths start.")
    ] = None,
    resume: Resume = False,
    workers: Workers = None,
    threads: Threads = None,
    device: Device = "auto",
    precision: PrecisionOption = "fp32",
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            show_default="none",
            help="Seconds a video may take, decoded in a process of its own.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
) -> None:
    """Embed videos as unit vectors, in the space in which sentences are.

    clipact embed clips/ --out features.parquet

    clipact embed windows.csv --data ~/videos --out features.parquet --resume

    A row has path, sha256, start_seconds, end_seconds, model, model_hash and
    embedding, a list of fixed size; a video that cannot be read has its error,
    and NaN. pandas, DuckDB and datasets read the file; so do clipact eval and
    compare, with --features, without decoding anything.

    Stopped or killed, the same command with --resume goes on and writes the same
    file. Exit code 1 when a video could not be read.
    """
    from clipact.cache import Cache, content_key
    from clipact.cli.terminal import note, show_video_progress, track
    from clipact.clip_spec import ClipSpec
    from clipact.config import override, parse, to_table
    from clipact.data.fingerprint import file_digest
    from clipact.embed.clip_source import ClipSource
    from clipact.embed.feature_file import check_feature_file
    from clipact.embed.named_videos import expand_videos, read_sources_table
    from clipact.embed.options import EmbedOptions
    from clipact.embed.write_features import write_features
    from clipact.models.zoo import load_model

    check_feature_file(out)
    rows: Iterable[ClipSource]
    identity, total = "", None
    if len(videos) == 1 and videos[0].lower().endswith(".csv"):
        from clipact.data.manifest_reader import count_rows

        total = count_rows(videos[0])
        rows, identity = read_sources_table(videos[0], data), content_key(file_digest(videos[0]), str(data))
    elif data is not None:
        raise UsageError("--data is where the paths of a CSV table start; name one table")
    else:
        rows = [ClipSource(source=path, name=path) for path in expand_videos(videos)]
    loaded = load_model(model, device=device, precision=precision, defer_text=True)
    table: dict[str, Any] = {}
    for change in changes or ():
        table = override(table, change)
    spec = parse(ClipSpec, to_table(loaded.spec) | table)
    options = EmbedOptions(
        workers=workers,
        threads=threads,
        cache=Cache(),
        journal=out.with_name(f"{out.name}.journal"),
        resume=resume,
        time_limit_seconds=time_limit,
        progress=lambda items, count, what: track(items, total=count or total, what=what),
        video_progress=show_video_progress,
    )
    failed = count = 0
    for found in write_features(
        out, rows, loaded, per_frame=frames, spec=spec, clips=clips, options=options, identity=identity
    ):
        count += 1
        if found.error is not None:
            failed += 1
            if failed <= _NAMED:
                note(str(found.error), kind="error")
    print(out)
    if failed:
        note(f"{failed:,} of {count:,} videos could not be read; each has its error in {out}", kind="error")
        raise typer.Exit(1)
