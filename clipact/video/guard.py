"""Turn whatever a decoder raises into the VideoError of its file, so that the files after it are still read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from clipact.errors import ClipactError, VideoError
from clipact.video.clip import FramesDifferError

T = TypeVar("T")


@contextmanager
def decoder_errors(name: str) -> Iterator[None]:
    """Raise a VideoError for the video `name` in place of any exception of the libraries that decode it.

    Errors of clipact, a lack of memory, and FramesDifferError, after which another way is taken, pass unchanged.
    """
    try:
        yield
    except (ClipactError, FramesDifferError, MemoryError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise VideoError(name, f"its decoder failed ({said}); convert it, or try another decoder") from error


def guarded(name: str, items: Iterator[T]) -> Iterator[T]:
    """The items, under `decoder_errors`; what their receiver raises is not touched."""
    with decoder_errors(name):
        yield from items
