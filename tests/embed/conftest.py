import shutil
from pathlib import Path

import pytest

from clipact.cache import Cache
from clipact.embed import embed_clips as engine
from clipact.embed.clip_source import ClipSource
from tests.video.drawing import draw_video


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """A folder with videos of 40, 12 and 5 frames, ten a second, one of them twice, and a file that is none."""
    folder = tmp_path_factory.mktemp("films")
    for name, frames in {"a.mp4": 40, "b.mp4": 12, "c.mp4": 5}.items():
        draw_video(folder / name, frames=frames)
    shutil.copy(folder / "a.mp4", folder / "twin.mp4")
    (folder / "broken.mp4").write_text("not a video")
    return folder


@pytest.fixture(scope="session")
def source(films):
    """Makes the row of a film or a part of it."""

    def make(name, start_seconds=None, end_seconds=None, **more):
        return ClipSource(source=films / name, name=name, start_seconds=start_seconds, end_seconds=end_seconds, **more)

    return make


@pytest.fixture(scope="session")
def mixed(source):
    """Nine rows: whole videos, stretches of one, one twice, two that cannot be read."""
    return [
        source("a.mp4"),
        source("a.mp4", 1.0, 2.0),
        source("broken.mp4"),
        source("a.mp4", 0.55, 3.05),
        source("b.mp4"),
        source("twin.mp4"),
        source("gone.mp4"),
        source("c.mp4"),
        source("b.mp4", 0.2, 1.0),
    ]


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def decodings(monkeypatch):
    """The names of the sources that are decoded, in either way."""
    names = []

    def watch(real):
        return lambda source, *rest, **more: names.append(Path(str(source)).name) or real(source, *rest, **more)

    for way in ("collect_frames", "load_wanted"):
        monkeypatch.setattr(engine, way, watch(getattr(engine, way)))
    return names
