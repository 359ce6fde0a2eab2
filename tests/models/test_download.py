"""hub_file against a hub on 127.0.0.1, each time in a process of its own (see tests/hub.py)."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipact.errors import DownloadError
from clipact.models.download import OFFLINE_WAYS, hub_file
from tests.hub import Hub, environment

FETCH = """
import sys
from clipact.models.download import hub_file
from clipact.errors import DownloadError
for wanted in sys.argv[1:]:
    try:
        print(hub_file(*wanted.split()))
    except DownloadError as error:
        print(str(error).replace("\\n", "<newline>"))
"""

UNREACHABLE = "http://127.0.0.1:9"  # the discard port: nobody listens


def fetch(endpoint: str, cache: Path, *wanted: str, **more: str) -> list[str]:
    """One line for each "repository name name...": the path, or what the error says."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FETCH, *wanted],
        env=environment(endpoint, cache, **more),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_file_is_fetched_once_and_kept(tmp_path):
    with Hub({"org/model": {"b.bin": b"second choice", "c.bin": b"third"}}) as hub:
        first, again = fetch(hub.url, tmp_path, "org/model a.safetensors b.bin c.bin", "org/model b.bin")
        assert Path(first).read_bytes() == b"second choice"
        assert again == first
        assert hub.fetched() == ["b.bin"]
        assert Path(first).is_relative_to(tmp_path / "hub"), "the hub's usual cache"
        # Without the hub what is kept still serves; names are tried in order there too.
        for endpoint, more in ((hub.url, {"HF_HUB_OFFLINE": "1"}), (UNREACHABLE, {})):
            assert fetch(endpoint, tmp_path, "org/model a.safetensors b.bin", **more) == [first]
        assert hub.fetched() == ["b.bin"]


def test_what_the_hub_refuses_is_said_in_one_sentence(tmp_path):
    refused = {
        "org/gated": (403, "GatedRepo"),
        "org/private": (401, "RepoNotFound"),
        "org/forbidden": (403, ""),
        "org/busy": (503, ""),
    }
    with Hub({"org/model": {}}, refused=refused) as hub:
        names = ["org/gated", "org/private", "org/missing", "org/forbidden", "org/busy", "not a name", "org/model"]
        lines = dict(zip(names, fetch(hub.url, tmp_path, *(f"{name} a b" for name in names)), strict=True))
    assert f"accept its terms at {hub.url}/org/gated, then run `hf auth login`" in lines["org/gated"]
    assert "check the name or, if it is private, run `hf auth login`" in lines["org/private"]
    assert f"{hub.url} shows no org/missing" in lines["org/missing"]
    assert f"{hub.url} answered 403 for org/forbidden" in lines["org/forbidden"]
    assert f"{hub.url} answered 503 for org/busy" in lines["org/busy"]
    assert "org/model on the hub has no a or b" in lines.pop("org/model")
    for line in lines.values():
        assert line.endswith(OFFLINE_WAYS)
        assert "<newline>" not in line


def test_names_that_cannot_be_a_repository(tmp_path):
    for repository in ("a/b/c", "", "-x/y"):
        with pytest.raises(DownloadError, match="ORG/NAME"):
            hub_file(repository, "config.json")


@pytest.mark.parametrize(
    ("endpoint", "more", "cause"),
    [
        (UNREACHABLE, {}, f"the hub {UNREACHABLE} cannot be reached for org/model"),
        (UNREACHABLE, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set and org/model is not in the cache"),
    ],
)
def test_no_hub_and_nothing_kept(tmp_path, endpoint, more, cause):
    (line,) = fetch(endpoint, tmp_path, "org/model a b", **more)
    assert cause in line
    assert line.endswith(OFFLINE_WAYS)


def test_a_truncated_download_leaves_nothing_behind(tmp_path):
    with Hub({"org/model": {"weights": b"w" * 100_000}}, truncated={"weights"}) as hub:
        (line,) = fetch(hub.url, tmp_path, "org/model weights")
        assert "the download of weights from org/model broke off" in line
        assert line.endswith(OFFLINE_WAYS)
        hub.truncated.clear()
        (path,) = fetch(hub.url, tmp_path, "org/model weights")
        assert Path(path).read_bytes() == b"w" * 100_000


@pytest.mark.slow  # huggingface_hub tries again for five seconds
def test_a_connection_that_breaks_halfway(tmp_path):
    with Hub({"org/model": {"weights": b"w" * 100_000}}, dropped={"weights"}) as hub:
        (line,) = fetch(hub.url, tmp_path, "org/model weights")
    assert "the download of weights from org/model broke off" in line


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = str(tmp_path / "file" / "hub")
    with Hub({"org/model": {"weights": b"w"}}) as hub:
        for more in ({"HF_HUB_CACHE": cache}, {"HF_HOME": str(tmp_path / "file")}):
            (line,) = fetch(hub.url, tmp_path, "org/model weights", **more)
            assert f"the cache {cache} cannot be used (Not a directory)" in line
            assert "set HF_HOME" in line


def test_a_full_disk(monkeypatch):
    import huggingface_hub

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(DownloadError, match="the disk is full: no room for org/model"):
        hub_file("org/model", "weights")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_alone(tmp_path, terminal):
    termios = pytest.importorskip("termios")
    reader, writer = os.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(writer, (24, 80))
    with Hub({"org/model": {"weights": b"w" * 2_000_000}}) as hub:
        subprocess.run(
            [sys.executable, "-c", FETCH, "org/model weights"],
            env=environment(hub.url, tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=writer,
            check=True,
        )
    os.set_blocking(reader, False)
    try:
        shown = os.read(reader, 1_000_000)
    except BlockingIOError:  # nothing there
        shown = b""
    os.close(reader)
    os.close(writer)
    assert (b"weights" in shown and b"100%" in shown) == terminal
