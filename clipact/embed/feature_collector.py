"""Encode the frames of clips while they are decoded: no more pictures are held than one batch and one clip need.

A frame that a clip repeats, or that several clips share, is encoded once where the tower sees each frame by itself.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from clipact.engines.clip_encoder import ClipEncoder
from clipact.video.clip import Clip
from clipact.video.collect import FrameCollector

Picture = UInt8[np.ndarray, "h w c"]
Row = Float32[np.ndarray, "..."]


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """What a visual backbone makes of k clips.

    values  of each clip; where the backbone sees frames apart, of each distinct frame
    places  then, which of the values each frame of each clip has
    """

    values: Float32[np.ndarray, "n ..."]
    places: Int32[np.ndarray, "k t"] | None = None

    def __len__(self) -> int:
        return len(self.values if self.places is None else self.places)

    def of(self, clips: slice) -> Float32[np.ndarray, "k ..."]:
        """Return the features of some clips, those of their frames one after the other."""
        return self.values[clips] if self.places is None else self.values[self.places[clips]]


class BatchEncoder:
    """Encode clips in batches of one size, and hand each one's features to a callback.

    A batch that files share is filled up by repeating its last clip: the number of clips in it decides how a CPU adds
    up, and so no file's features depend on what came beside it.
    """

    def __init__(self, encoder: ClipEncoder, *, shared: bool = False) -> None:
        self.encoder, self.shared = encoder, shared
        self.frames_a_clip = 1 if encoder.by_frame else encoder.spec.frames
        self.clips_at_once = max(1, encoder.frames_at_once // self.frames_a_clip)
        self.seconds = 0.0
        self._waiting: list[tuple[UInt8[np.ndarray, "t h w c"], Callable[[Row], None]]] = []

    def put(self, clip: UInt8[np.ndarray, "t h w c"], receive: Callable[[Row], None]) -> None:
        """Take in a clip; `receive` is called with its features, now or at the next `flush`."""
        self._waiting.append((clip, receive))
        if len(self._waiting) == self.clips_at_once:
            self.flush()

    def flush(self) -> None:
        """Encode what is waiting."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        clips = [clip for clip, _ in waiting]
        if self.shared:
            clips += [clips[-1]] * (self.clips_at_once - len(clips))
        begun = time.perf_counter()
        features = self.encoder.encode(np.stack(clips))
        self.seconds += time.perf_counter() - begun
        for (_, receive), row in zip(waiting, features, strict=False):
            receive(row)


class FeatureCollector(FrameCollector):
    """Make features of a row's clips as its frames come; `features` has them once the batch was flushed.

    One that is `alone` flushes when its frames have come; others share the batch, and who made it flushes.
    """

    def __init__(self, encoder: ClipEncoder, batch: BatchEncoder, *, alone: bool = True) -> None:
        self.encoder, self.batch, self.alone = encoder, batch, alone
        self._clips: Sequence[Sequence[int]] = ()
        self._crops = 1
        self._rows: dict[tuple[int, int], Row] = {}  # by frame number and crop, or by clip and crop
        self._pictures: dict[int, Sequence[Picture]] = {}  # of clips that are not whole yet
        self._missing: list[int] = []  # frames of each clip that have not come
        self._clips_of: dict[int, list[int]] = {}  # whole clips are not among them

    def begin(self, clips: Sequence[Sequence[int]], *, crops: int) -> None:
        """Begin anew: frame numbers of each clip."""
        self._clips, self._crops = clips, crops
        self._rows, self._pictures = {}, {}  # new ones: what is on its way from before goes nowhere
        self._missing, self._clips_of = [len(set(numbers)) for numbers in clips], {}
        for clip, numbers in enumerate(clips):
            for number in set(numbers):
                self._clips_of.setdefault(number, []).append(clip)

    def add(self, number: int, pictures: Sequence[Picture]) -> None:
        """Take in a frame, one picture a crop."""
        if self.encoder.by_frame:
            for crop, picture in enumerate(pictures):
                self._put((number, crop), picture[None])
            return
        self._pictures[number] = pictures
        for clip in tuple(self._clips_of[number]):
            self._missing[clip] -= 1
            if not self._missing[clip]:
                self._put_clip(clip)

    def finish(self) -> None:
        """All frames came; a batch of this row's own is encoded."""
        if self.alone:
            self.batch.flush()

    def collect_clips(self, clips: Sequence[Clip], *, crops: int, apart: bool) -> None:
        """Take in clips that are decoded already; `apart`, as when they are augmented, no two frames are the same."""
        if apart:
            frames = len(clips[0])
            self.begin([range(i * frames, (i + 1) * frames) for i in range(len(clips) // crops)], crops=crops)
        else:
            self.begin([[stamp.index for stamp in clip.stamps] for clip in clips[::crops]], crops=crops)
        seen: set[int] = set()
        for view, numbers in enumerate(self._clips):
            for place, number in enumerate(numbers):
                if number not in seen:
                    seen.add(number)
                    self.add(number, [clips[view * crops + crop].frames[place] for crop in range(crops)])
        self.finish()

    @property
    def features(self) -> Features:
        """The features of each clip, its crops one after the other; those of a frame are there once."""
        if not self.encoder.by_frame:
            places = [(clip, crop) for clip in range(len(self._clips)) for crop in range(self._crops)]
            return Features(values=np.stack([self._rows[place] for place in places]))
        place = {key: number for number, key in enumerate(self._rows)}
        views = [(numbers, crop) for numbers in self._clips for crop in range(self._crops)]
        return Features(
            values=np.concatenate(list(self._rows.values())),
            places=np.array([[place[number, crop] for number in numbers] for numbers, crop in views], np.int32),
        )

    def _put_clip(self, clip: int) -> None:
        numbers = self._clips[clip]
        for crop in range(self._crops):
            self._put((clip, crop), np.stack([self._pictures[number][crop] for number in numbers]))
        for number in set(numbers):
            self._clips_of[number].remove(clip)
            if not self._clips_of[number]:
                del self._pictures[number]

    def _put(self, place: tuple[int, int], clip: UInt8[np.ndarray, "t h w c"]) -> None:
        rows = self._rows

        def receive(row: Row) -> None:
            rows[place] = row

        self.batch.put(clip, receive)


def encode_clip(encoder: ClipEncoder, frames: UInt8[np.ndarray, "t h w c"]) -> Row:
    """Return the features of one clip, whose frames fit the encoder's spec, however many they are."""
    if not encoder.by_frame:
        return encoder.encode(frames[None])[0]
    pieces = range(0, len(frames), encoder.frames_at_once)
    return np.concatenate([encoder.encode(frames[i : i + encoder.frames_at_once, None])[:, 0] for i in pieces])
