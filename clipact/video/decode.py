"""The decoders, by the name that `--decoder` takes. To add one: a file with a Video, and a line here."""

from collections.abc import Callable

from clipact.errors import UsageError, choices
from clipact.video.decode_pyav import PyavVideo
from clipact.video.decode_torchcodec import TorchcodecVideo
from clipact.video.media import Media
from clipact.video.video import Video

DECODERS: dict[str, Callable[[Media], Video]] = {
    "pyav": PyavVideo,
    "torchcodec": TorchcodecVideo,
}


def check_decoder(name: str) -> None:
    """Nothing, or a UsageError when no decoder has this name."""
    if name not in DECODERS:
        raise UsageError(f"no decoder is called {name!r}; {choices(name, DECODERS)}")
