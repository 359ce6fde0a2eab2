"""Decoding in a process of its own: a decoder that hangs or crashes takes nobody with it.

Costs 0.3 s a video, most of it for starting Python. It guards against time and memory, not against malice: the
child's answer is a pickle.
"""

import io
import os
import pickle
import resource
import subprocess
import sys

from clipact.errors import ClipactError, VideoError
from clipact.video.clip import Clip
from clipact.video.load import Wanted, load_wanted
from clipact.video.source import Source

MEMORY_LIMIT_BYTES = 4 * 2**30  # of address space, which threads and libraries claim far more of than they use


def load_isolated(
    source: Source, wanted: Wanted, *, time_limit_seconds: float, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
) -> tuple[Clip, ...]:
    """What `load_wanted` gives, from a process that has `time_limit_seconds` to decode and then is ended.

    VideoError when the time is up, when memory is not enough, or when the decoder crashes.
    """
    name = str(source) if isinstance(source, str | os.PathLike) else type(source).__name__
    if isinstance(source, str) and source == "-":
        source = sys.stdin.buffer.read()
    elif isinstance(source, io.IOBase):
        source = source.read()  # a file object cannot be handed to another process
    # What its shared libraries print when they fail must not reach our screen: the cause is told below.
    with subprocess.Popen(
        [sys.executable, "-m", "clipact.video.isolate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            answer, _ = child.communicate(
                pickle.dumps((source, wanted, memory_limit_bytes)), timeout=time_limit_seconds
            )
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise VideoError(name, f"not decoded within {time_limit_seconds:g} seconds") from error
    if child.returncode != 0:
        raise VideoError(name, f"its decoder crashed (exit code {child.returncode})")
    result: tuple[Clip, ...] | ClipactError = pickle.loads(answer)
    if isinstance(result, ClipactError):
        raise result
    return result


def _answer() -> None:
    """Decode what standard input asks for and write the clips, or the error, to standard output."""
    # Nothing that a library prints may get between the bytes of the answer.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source, wanted, memory_limit_bytes = pickle.load(sys.stdin.buffer)
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))
    result: tuple[Clip, ...] | ClipactError
    try:
        result = load_wanted(source, wanted)
    except ClipactError as error:
        result = error
    except MemoryError:
        result = VideoError(str(source)[:200], f"more than {memory_limit_bytes / 2**30:g} GB of memory is needed")
    pickle.dump(result, out, protocol=pickle.HIGHEST_PROTOCOL)
    out.flush()


if __name__ == "__main__":
    _answer()
