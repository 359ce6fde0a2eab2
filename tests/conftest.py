"""What every test runs under: shapes and types checked, no network, a cache of its own, few threads.

The environment is set before anything is imported, because model libraries read it at import; processes that a
test starts inherit it.
"""

import gc
import ipaddress
import os
import socket
import sys
import tempfile

import hypothesis
import jaxtyping
import pytest

from clipact import aliases

_home = tempfile.TemporaryDirectory(prefix="clipact-tests-")
os.environ["CLIPACT_CACHE"] = f"{_home.name}/clipact"
os.environ["HF_HOME"] = f"{_home.name}/huggingface"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads and a later fork do not agree
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
for _name in ("CLIPACT_MODEL", "HF_TOKEN", "HF_HUB_CACHE", "HF_ENDPOINT"):
    os.environ.pop(_name, None)

# Before the first import of clipact: every shape and type in a signature is checked at each call.
jaxtyping.install_import_hook("clipact", "beartype.beartype")

# A busy machine is no fault of an example: no test has a time limit.
hypothesis.settings.register_profile("clipact", deadline=None)
hypothesis.settings.load_profile("clipact")


def _is_here(host: object) -> bool:
    if host in ("", "localhost", None):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _names_are_said_again():
    """Old names are said once a process: here once a test."""
    aliases._warned.clear()


@pytest.fixture(autouse=True)
def _threads_are_left_as_they_were():
    """What an error has stopped holds torch's threads until it is collected; other threads give other last bits."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None and sys.modules["torch"].get_num_threads() != before:
        gc.collect()
        sys.modules["torch"].set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _only_this_machine():
    """A connection to another machine, or a look-up of its name, fails the test that asked for it.

    RuntimeError, not OSError: code that turns an unreachable host into a clear error must not hide it.
    """
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if self.family != socket.AF_UNIX and not _is_here(address[0]):
            raise RuntimeError(f"a test reaches for {address}: tests have no network")
        return connect(self, address)

    def guarded_look_up(host, *args, **kwargs):
        if not _is_here(host.decode() if isinstance(host, bytes) else host):
            raise RuntimeError(f"a test looks up {host!r}: tests have no network")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


def pytest_collection_modifyitems(config, items):
    """Slow tests run in CI, or when `-m` asks for a choice of one's own."""
    if os.environ.get("CI") == "true" or config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    from tests.tiny import tiny_checkpoint  # after the import hook

    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """A folder with two videos, a subfolder with one more, and a text file."""
    import av
    import numpy as np

    folder = tmp_path_factory.mktemp("videos")
    (folder / "more").mkdir()
    for number, name in enumerate(["a.mp4", "b.mp4", "more/c.mp4"]):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for t in range(20):
                picture = np.full((48, 64, 3), 40 * (number + 1), np.uint8)
                picture[10:30, t * 2 : t * 2 + 20] = (250, 30, 30)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    (folder / "notes.txt").write_text("no video")
    return folder
