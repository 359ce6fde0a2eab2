"""Samples a second: clipact's loader beside a plain torch DataLoader over the same files and transforms, in one run.

    python eval/benchmarks/loader_speed.py --data DIR [--workers 2]

DIR holds flickr8k/captions.csv and clips/weizmann.csv, clips/ut_interaction.csv. Rounds alternate; the best of each
counts; every batch is read through once, as a step would. Two plain ones stand beside ours: "same decoder" calls
clipact's load_clips, so that the difference is what the loader itself adds; "usual" is what people write, Pillow and
torchvision for pictures, PyAV and torchvision for clips.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from clipact.clip_spec import ClipSpec
from clipact.data.sources import SourceConfig, TrainingExample, read_sources
from clipact.train.loader import ClipTextDataset, Loader
from clipact.video.augment import Augment
from clipact.video.load import load_clips

SPEC = ClipSpec(size=(224, 224))
AUGMENT = Augment()
CHUNK = 32


class SameDecoder(Dataset[Any]):
    """clipact's decoder and transforms, called as they are."""

    def __init__(self, examples: list[TrainingExample]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, str]:
        example = self.examples[number]
        spec, generator = SPEC.with_frames(example.frames), np.random.default_rng(number)
        (clip,) = load_clips(example.path, spec, generator=generator, augment=AUGMENT)
        return torch.from_numpy(clip.frames), example.sentences[0]


class Usual(SameDecoder):
    """What people write: every frame decoded, some kept, torchvision's random crop and mirror."""

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(
                SPEC.size, scale=AUGMENT.scale, ratio=AUGMENT.ratio, interpolation=v2.InterpolationMode.BICUBIC
            ),
            v2.RandomHorizontalFlip(AUGMENT.flip),
        ]
    )

    def __getitem__(self, number: int) -> tuple[torch.Tensor, str]:
        example = self.examples[number]
        if example.frames == 1:
            return v2.functional.pil_to_tensor(
                self.transform(Image.open(example.path).convert("RGB"))
            ), example.sentences[0]
        with av.open(example.path, metadata_errors="ignore") as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        chosen = np.linspace(0, len(pictures) - 1, example.frames).astype(int)
        frames = torch.from_numpy(np.stack([pictures[i] for i in chosen])).permute(0, 3, 1, 2)
        return self.transform(frames), example.sentences[0]


def ours(examples: list[TrainingExample], *, batch: int, workers: int) -> Iterable[int]:
    """Rows in each batch of clipact's loader."""
    loader = Loader(
        ClipTextDataset(examples, SPEC, seed=0, augment=AUGMENT),
        batch=batch,
        chunk=CHUNK * examples[0].frames,
        workers=workers,
    )
    return (read(one.visual, len(one)) for one in loader.batches(0, len(examples) // batch))


def plain(
    kind: Callable[[list[TrainingExample]], SameDecoder], examples: list[TrainingExample], *, batch: int, workers: int
) -> Iterable[int]:
    """Rows in each batch of a plain DataLoader."""
    loader = DataLoader(kind(examples), batch_size=batch, shuffle=True, num_workers=workers, drop_last=True)
    return (read([frames], len(words)) for frames, words in loader)


def read(frames: Iterable[torch.Tensor], rows: int) -> int:
    """The rows, once every pixel of them has been looked at, as a step would."""
    assert all(int(piece.max()) > 0 for piece in frames)
    return rows


def samples_a_second(batches: Iterable[int]) -> float:
    """From the first batch on, so that starting workers does not count."""
    iterator = iter(batches)
    next(iterator)
    begun = time.perf_counter()
    rows = sum(iterator)
    return rows / (time.perf_counter() - begun)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    torch.set_num_threads(1)
    pictures = read_sources([SourceConfig(manifest=Path("flickr8k/captions.csv"))], words.data)[:4000]
    clips = read_sources(
        [
            SourceConfig(manifest=Path(f"clips/{name}.csv"), frames=8, prompts="single")
            for name in ("weizmann", "ut_interaction")
        ],
        words.data,
    )
    print(f"{'':24}{'clipact':>10}{'same decoder':>14}{'usual':>8}   samples/s, {words.workers} workers")
    for name, examples, batch in (("pictures, 224 px", list(pictures), 64), ("clips, 8 x 224 px", 3 * list(clips), 8)):
        best: dict[str, float] = {}
        for _ in range(words.rounds):
            for kind, batches in {
                "clipact": ours(examples, batch=batch, workers=words.workers),
                "same decoder": plain(SameDecoder, examples, batch=batch, workers=words.workers),
                "usual": plain(Usual, examples, batch=batch, workers=words.workers),
            }.items():
                best[kind] = max(best.get(kind, 0.0), samples_a_second(batches))
        print(f"{name:24}{best['clipact']:10.1f}{best['same decoder']:14.1f}{best['usual']:8.1f}", flush=True)


if __name__ == "__main__":
    main()
