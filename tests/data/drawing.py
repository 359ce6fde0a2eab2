"""Data sets small enough to draw: one-colour pictures and clips, and manifests that name them."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.video.drawing import draw_video


def draw_picture(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 32, 3), shade, dtype=np.uint8)).save(path)
    return path


def blocks(seed: int, size: tuple[int, int] = (90, 80)) -> Image.Image:
    """Coarse blocks, so that a picture made smaller or coded again is still the same to the eye."""
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)


def write_manifest(path: Path, *rows: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def draw_shades(folder: Path, more: Callable[[int], dict[str, object]]) -> Path:
    """Twelve pictures, dark and bright in turn, and shades.csv, which says `more` of each by its number."""
    rows = []
    for number in range(12):
        label, shade = ("Bright_day", 190) if number % 2 else ("dark", 30)
        draw_picture(folder / f"pictures/{number}.png", shade=shade + 3 * number)
        rows.append({"path": f"pictures/{number}.png", "label": label, **more(number)})
    write_manifest(folder / "shades.csv", *rows)
    return folder


def draw_data(folder: Path) -> Path:
    """Twelve captioned pictures, two captions each, and three labelled clips."""
    pictures = []
    for number in range(12):
        draw_picture(folder / f"pictures/{number}.png", shade=20 * number)
        split = "test" if number > 9 else "train"
        pictures += [
            {"path": f"pictures/{number}.png", "caption": f"{words} {chr(97 + number)}", "split": split}
            for words in ("a picture in grey", "this is grey")
        ]
    write_manifest(folder / "pictures.csv", *pictures)
    clips = []
    (folder / "clips").mkdir()
    for number, label in enumerate(("waving", "bending", "waving")):
        draw_video(folder / f"clips/{number}.mp4", frames=12 + number)
        clips.append({"path": f"clips/{number}.mp4", "label": label})
    write_manifest(folder / "clips.csv", *clips)
    return folder
