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
import tempfile
from typing import Any

from clipact.errors import ClipactError, UsageError, VideoError
from clipact.video.clip import Clip
from clipact.video.collect import Wanted
from clipact.video.load import load_wanted
from clipact.video.open_source import VideoSource, source_name

_INHERITED = "<the descriptor of standard input>"

MEMORY_LIMIT_BYTES = 4 * 2**30  # of address space, which threads and libraries claim far more of than they use


def load_in_subprocess(
    source: VideoSource, wanted: Wanted, *, time_limit_seconds: float, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
) -> tuple[Clip, ...]:
    """What `load_wanted` gives, from a process that has `time_limit_seconds` to decode and then is ended.

    Standard input, pipes and sockets are read there, too; a file object that only Python can read is read here, which
    takes as long as it takes. VideoError when the time is up, when memory is not enough, or when the decoder crashes.
    """
    name = source_name(source)
    stdin: int | None = subprocess.DEVNULL
    if isinstance(source, str) and source == "-":
        stdin = None  # ours
    elif isinstance(source, io.IOBase):
        if (piped := _descriptor(source)) is not None:
            source, stdin = _INHERITED, piped
        else:
            source = _copied(source, name=name)
    # The question goes by way of a file, because a pipe is full before the child listens.
    with tempfile.TemporaryFile() as question:
        pickle.dump((source, name, wanted, memory_limit_bytes), question, protocol=pickle.HIGHEST_PROTOCOL)
        question.flush()
        question.seek(0)
        # What its shared libraries print when they fail must not reach our screen: the cause is told below.
        with subprocess.Popen(
            [sys.executable, "-m", "clipact.video.decode_subprocess", str(question.fileno())],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(question.fileno(),),
        ) as child:
            try:
                answer, _ = child.communicate(timeout=time_limit_seconds)
            except subprocess.TimeoutExpired as error:
                child.kill()
                raise VideoError(name, f"not decoded within {time_limit_seconds:g} seconds") from error
    if child.returncode != 0:
        raise VideoError(name, f"its decoder crashed (exit code {child.returncode})")
    result, drawn = pickle.loads(answer)
    if wanted.generator is not None:
        wanted.generator.bit_generator.state = drawn  # as if it had drawn here
    if isinstance(result, ClipactError):
        raise result
    return tuple(result)


def _descriptor(source: io.IOBase) -> int | None:
    """The descriptor of a pipe or socket, which another process can read; None of what lies still or has none."""
    try:
        return None if source.seekable() else source.fileno()
    except OSError:
        return None


def _copied(source: Any, *, name: str) -> io.IOBase:
    """What a file object holds, from its beginning, under its name: it cannot be handed to another process itself."""
    if source.seekable():
        source.seek(0)
    data = source.read()
    if not isinstance(data, bytes):
        raise UsageError(f"{name} is open as text; open it with mode 'rb'")
    copy = io.BytesIO(data)
    vars(copy)["name"] = name
    return copy


def _answer(question: int) -> None:
    """Decode what is asked for and write the clips, or the error, to standard output."""
    # Nothing that a library prints may get between the bytes of the answer.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with os.fdopen(question, "rb") as file:
        source, name, wanted, memory_limit_bytes = pickle.load(file)
    if isinstance(source, str) and source == _INHERITED:
        source = io.FileIO(0)
        source.name = name
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))
    result: tuple[Clip, ...] | ClipactError
    try:
        result = load_wanted(source, wanted)
    except ClipactError as error:
        result = error
    drawn = None if wanted.generator is None else wanted.generator.bit_generator.state
    pickle.dump((result, drawn), out, protocol=pickle.HIGHEST_PROTOCOL)
    out.flush()


if __name__ == "__main__":
    _answer(int(sys.argv[1]))
