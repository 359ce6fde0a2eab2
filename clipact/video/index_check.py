"""Read packets from a key frame on, to check what an index says of it."""

from collections.abc import Iterator
from typing import Any

from clipact.video.clip import FramesDifferError, KeyFrame
from clipact.video.media import Media

INDEX_DIFFERS = "its index does not hold"


def packets_from(media: Media, key: KeyFrame) -> Iterator[Any]:
    """The packets from the key frame on; FramesDifferError when it does not come."""
    media.seek(key.tick)
    begun = False
    for packet in media.packets():
        begun = begun or packet.pts == key.tick
        if begun:
            yield packet
        elif packet.dts is not None and packet.dts > key.tick:
            break
    if not begun:
        raise FramesDifferError(INDEX_DIFFERS)
