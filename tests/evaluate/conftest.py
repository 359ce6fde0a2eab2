import av
import numpy as np
import pytest

from clipact.cache import Cache
from clipact.classify.zero_shot import ZeroShotClassifier

LABELS = ("waving", "jumping", "bending")


def draw(path, colour, *, frames=12):
    """A small video of a square that moves over a ground of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for t in range(frames):
            picture = np.full((32, 48, 3), colour, np.uint8)
            picture[8:20, 2 * t : 2 * t + 12] = (250, 30, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Fourteen videos of three labels with a table beside them: one of them twice, one of them no video."""
    folder = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    lines = ["path,label,person"]
    for number in range(14):
        label = LABELS[number % 3]
        path = folder / "videos" / f"{number:02}.mp4"
        if number == 5:
            path.write_text("not a video")
        elif number == 9:
            path.write_bytes((folder / "videos" / "02.mp4").read_bytes())
        else:
            draw(path, tuple(int(c) for c in rng.integers(0, 255, 3)))
        lines.append(f"videos/{number:02}.mp4,{label},p{number // 2}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def classifier(tiny, cache):
    return ZeroShotClassifier.load(str(tiny), labels=LABELS, device="cpu", cache=cache)
