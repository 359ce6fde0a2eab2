"""List the ways of having the frames of a file, in the order in which they are tried.

Each gives the same frames or raises FramesDifferError. To add a decoder: a line in DECODERS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from clipact.errors import UsageError, choices
from clipact.video.clip import Timeline, Video
from clipact.video.decode_pyav import PyavVideo
from clipact.video.decode_sequential import SequentialVideo
from clipact.video.decode_torchcodec import TorchcodecVideo
from clipact.video.media import Media

DECODERS: dict[str, Callable[[Media], Video]] = {
    "pyav": PyavVideo,
    "torchcodec": TorchcodecVideo,
}


def check_decoder(name: str) -> None:
    """Nothing, or a UsageError when no decoder has this name."""
    if name not in DECODERS:
        raise UsageError(f"no decoder is called {name!r}; {choices(name, DECODERS)}")


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of having the frames of a file.

    name      tells its timeline from those of other ways
    open      makes the Video
    timeline  reads the Video's timeline; None where there is no such way, FramesDifferError where it does not hold
    on_disk   whether a long timeline is kept: not where reading it costs nothing
    noted     whether a reader is told that it did not hold
    """

    name: str
    open: Callable[[Media], Video]
    timeline: Callable[[Video], Timeline | None]
    on_disk: bool = True
    noted: bool = False


def list_ways(decoder: str) -> list[Way]:
    """The decoder that was asked for, else another; by the container's index, else by packets; else counting frames."""

    def by_index(video: Video) -> Timeline | None:
        return video.indexed_timeline()

    def whole(video: Video) -> Timeline:
        return video.timeline()

    ways = []
    for name in dict.fromkeys((decoder, "pyav")):
        ways.append(Way(name=f"{name} by index", open=DECODERS[name], timeline=by_index, on_disk=False))
        ways.append(Way(name=name, open=DECODERS[name], timeline=whole, noted=name != "pyav"))
    by_packets = partial(SequentialVideo, by_packets=True)
    return [
        *ways,
        Way(name="counted by packets", open=by_packets, timeline=by_index),
        Way(name="counted", open=SequentialVideo, timeline=whole),
    ]
