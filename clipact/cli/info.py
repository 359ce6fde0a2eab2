"""`clipact info`: format, size, rate and length of videos, and what is unusual about them."""

import json
import sys
from typing import Annotated

import typer

from clipact.cli.terminal import Videos
from clipact.errors import VideoError


def info(
    videos: Videos,
    end: Annotated[float | None, typer.Option("--to", min=0, help="Where a live source stops, in seconds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a video and line.")] = False,
) -> None:
    """Tell codec, size, rotation, rate, duration, frames and key frames of videos, and what is odd about them.

    clipact info video.mp4

    Exit code 1 when a video could not be read; the others are told all the same.
    """
    from clipact.cli.terminal import note, show_video_progress
    from clipact.embed.named_videos import expand_videos
    from clipact.video.inspect import inspect

    failed = 0
    for source in expand_videos(videos):
        try:
            found = inspect(source, end_seconds=end, progress=show_video_progress)
        except VideoError as error:
            failed += 1
            if as_json:
                _print_row({"source": source, "error": {"type": "VideoError", "message": str(error)}})
            else:
                note(str(error), kind="error")
            continue
        if as_json:
            _print_row({**found.to_table(), "error": None})
            continue
        rate = f"{found.rate_fps:g} fps" if found.rate_fps else "no rate"
        duration = f"{found.duration_seconds:.3f} s" if found.duration_seconds else "no duration"
        keys = "" if found.key_frames is None else f" ({found.key_frames} key frames)"
        print(found.source)
        print(f"  {found.codec} {found.pixel_format} in {found.container}, {found.width} x {found.height}")
        print(f"  {duration}, {rate}, {found.frames} frames{keys}")
        for remark in found.odd:
            print(f"  odd: {remark}")
    if failed:
        raise typer.Exit(1)


def _print_row(row: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()
