"""The drawn clips of motion.py: shapes that move over grey noise, and stills of them, each with a sentence.

6 colours x 4 shapes x 4 directions make 96 sentences. Six pairs of a look and an axis are held out, one of each colour,
with both directions: every colour, shape and direction is learnt from, and every two of them together, but 12 of the
sentences are not. Every test clip is there backwards, too, with the opposite direction.
"""

import csv
from dataclasses import dataclass

import av
import numpy as np
from PIL import Image

from clipact.evaluate import EvalSample

FRAMES, SIDE, RADIUS = 8, 32, 5
STILLS, CLIPS, PAIRS = (
    12,
    40,
    20,
)  # pictures of a look in a place; clips to learn from of a sentence; pairs to ask about
ROOM = SIDE - (2 * RADIUS + 1)  # pixels that a shape can be moved by
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (60, 90, 250),
    "yellow": (240, 220, 40),
    "white": (250, 250, 250),
    "purple": (190, 50, 220),
}
SHAPES = ("square", "ring", "cross", "dot")
AXES = (("left", "right"), ("up", "down"))
WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # rows, columns
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


@dataclass(frozen=True)
class Motion:
    """What is to be seen in a clip."""

    colour: str
    shape: str
    direction: str

    @property
    def sentence(self):
        """What is said of it."""
        return f"a {self.colour} {self.shape} moves {self.direction}"

    @property
    def opposite(self):
        """The same, the other way."""
        return Motion(self.colour, self.shape, OPPOSITE[self.direction])

    @property
    def held_out(self):
        """Whether no clip of it is learnt from; the opposite is held out with it."""
        colour, shape = list(COLOURS).index(self.colour), SHAPES.index(self.shape)
        return shape == colour % 4 and (self.direction in AXES[1]) == bool(colour % 2)


MOTIONS = [Motion(c, s, d) for c in COLOURS for s in SHAPES for axis in AXES for d in axis]


def draw_shape(shape, radius):
    """A square picture of 0 and 1, `2 radius + 1` pixels wide."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    away = np.hypot(rows, columns)
    return {
        "square": np.ones_like(rows, dtype=bool),
        "ring": (away <= radius + 0.5) & (away > radius - 1.5),
        "cross": (abs(rows) <= 1) | (abs(columns) <= 1),
        "dot": away <= radius / 2,
    }[shape]


def paint(motion, corners, generator):
    """Frames (t, h, w, c), uint8, with the upper left corner of the shape at `corners`; the background is random."""
    mask = draw_shape(motion.shape, RADIUS)
    shape = (len(corners), SIDE, SIDE, 3)
    frames = generator.integers(20, 90) + generator.normal(0, 4, shape)
    for frame, (top, left) in zip(frames, corners, strict=True):
        frame[top : top + len(mask), left : left + len(mask)][mask] = COLOURS[motion.colour]
    return frames.clip(0, 255).astype(np.uint8)


def draw_clip(motion, generator):
    """A clip: the shape moves at a random pace, from a random place from which it stays in the picture."""
    pace = generator.uniform(1.6, 2.6)
    travelled = np.round(pace * np.arange(FRAMES)[:, None] * np.array(WAYS[motion.direction])).astype(int)
    low, high = -travelled.min(0), ROOM - travelled.max(0)
    return paint(motion, generator.integers(low, high + 1) + travelled, generator)


def draw_still(motion, place, generator):
    """A picture: the shape somewhere in one of nine places."""
    corner = [int(generator.integers(ninth * (ROOM + 1) // 3, (ninth + 1) * (ROOM + 1) // 3)) for ninth in place]
    return paint(motion, [corner], generator)[0]


def write_clip(path, frames, *, container=None):
    """Uncompressed: what is drawn is what is seen. The container follows from the name, or is given."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream("rawvideo", rate=len(frames))
        (stream.height, stream.width), stream.pix_fmt = frames.shape[1:3], "bgr24"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr24")))
        file.mux(stream.encode(None))


def draw_data(folder, *, seed):
    """Writes stills.csv and clips.csv with their files; gives the test clips, each forwards and backwards."""
    for name in ("stills", "clips"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(seed)
    stills, clips, tests = [], [], []
    for motion in MOTIONS:
        if motion.direction == "left":  # once for each look
            for place in np.ndindex(3, 3):
                where = f"a {motion.colour} {motion.shape} at the {ROWS[place[0]]} {COLUMNS[place[1]]}"
                for number in range(STILLS):
                    stills.append({"path": f"stills/{where} {number}.png", "caption": where})
                    Image.fromarray(draw_still(motion, place, generator)).save(folder / stills[-1]["path"])
        for number in range(0 if motion.held_out else CLIPS):
            clips.append({"path": f"clips/{motion.sentence} {number}.avi", "caption": motion.sentence})
            write_clip(folder / clips[-1]["path"], draw_clip(motion, generator))
    for motion in (one for one in MOTIONS if one.direction in ("left", "up")):
        for number in range(PAIRS):
            frames = draw_clip(motion, generator)
            for shown, way in ((motion, frames), (motion.opposite, frames[::-1])):
                path = folder / f"clips/test {shown.sentence} {number}.avi"
                write_clip(path, way)
                tests.append(EvalSample(name=path.name, path=path, label=shown.sentence))
    for name, rows in (("stills", stills), ("clips", clips)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["path", "caption"])
            table.writeheader()
            table.writerows(rows)
    return tests
