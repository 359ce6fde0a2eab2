"""Which tone mapping of HDR video gives the answers of its SDR twin.

Draws pairs of real clips: the SDR clip, and its twin in HDR (10 bits, BT.2020, PQ or HLG), whose light is alike (white
at 203 cd/m2, BT.2408), or whose highlights are spread up to 1000 cd/m2, as cameras record them. Both are encoded alike,
and embedded by a model: the cosine of the twins, and how often their nearest label is the same.

    python eval/benchmarks/hdr_tone_mapping.py ../shared/data/clips
"""

import argparse
import json
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from clipact.embed.embed import embed_text, embed_videos
from clipact.prompts.label_set import LabelSet
from clipact.video import tone_mapping
from clipact.video.load import load_clip
from clipact.video.open_source import files_below

_TO_2020 = np.linalg.inv(np.array(tone_mapping._BT2020_TO_BT709, np.float64))
_TRANSFERS = {"pq": 16, "hlg": 18}


def hdr_codes(frames: np.ndarray, transfer: str, *, highlights: bool) -> np.ndarray:
    """R'G'B' of 16 bits whose light is that of 8-bit frames."""
    light = (frames / 255.0) ** 2.4
    if highlights:  # light above half of white is spread, up to the peak of 1000 cd/m2
        peak = 1000 / 203
        brightest = light.max(axis=-1, keepdims=True)
        over = np.clip((brightest - 0.5) / 0.5, 0, 1)
        light = light * (1 + (peak - 1) * over**2)
    light = np.clip(light @ _TO_2020.T, 0, 10_000 / 203)
    if transfer == "pq":
        coded = tone_mapping.pq_code(light)
    else:
        display = np.clip(light * 203 / 1000, 0, 1)
        luminance = np.maximum(display @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)[..., None]
        scene = np.clip(display * luminance ** (-0.2 / 1.2), 0, 1)
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        coded = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    return np.rint(np.clip(coded, 0, 1) * 65535).astype(np.uint16)


def write(path: Path, frames: np.ndarray, *, transfer: int) -> None:
    """Encode frames, 8 bits as BT.709, 16 bits as BT.2020."""
    hdr = frames.dtype == np.uint16
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12"})
        stream.height, stream.width = (size // 2 * 2 for size in frames.shape[1:3])
        stream.pix_fmt = "yuv420p10le" if hdr else "yuv420p"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = (9, transfer, 9) if hdr else (1, 1, 1)
        for number, pixels in enumerate(frames):
            cut = np.ascontiguousarray(pixels[: stream.height, : stream.width])
            frame = av.VideoFrame.from_ndarray(cut, format="rgb48le" if hdr else "rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=9 if hdr else 1)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def coded_frames(path: Path) -> list[np.ndarray]:
    """All frames as R'G'B' of 16 bits, without any tone mapping."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb48le") for frame in container.decode(video=0)]


def flat(coded: np.ndarray, transfer: int) -> np.ndarray:
    """The codes taken for those of an ordinary video."""
    return np.rint(coded / 257).astype(np.uint8)


def _through(curve):
    """A tone mapping with another curve over the largest of R, G and B."""

    def mapped(coded: np.ndarray, transfer: int) -> np.ndarray:
        light = np.maximum(tone_mapping._display_light(coded, transfer) @ tone_mapping._BT2020_TO_BT709.T, 0)
        most = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
        return np.rint(255 * np.clip(light * curve(most) / most, 0, 1) ** (1 / 2.4)).astype(np.uint8)

    return mapped


def _hable(light: np.ndarray) -> np.ndarray:
    def filmic(x):
        return (x * (0.15 * x + 0.05) + 0.004) / (x * (0.15 * x + 0.5) + 0.06) - 0.02 / 0.3

    return filmic(light) / filmic(1000 / 203)


def _knee(knee: float):
    """A rational curve that begins at a knee."""
    room, most = 1 - knee, 1000 / 203 - knee
    scale = room * most / (most - room)

    def curve(light: np.ndarray) -> np.ndarray:
        above = np.clip(light - knee, 0, most)
        return np.where(above > 0, knee + above / (1 + above / scale), light)

    return _through(curve)


WAYS = {
    "flat (not mapped)": flat,
    "cut at white": _through(lambda light: np.minimum(light, 1)),
    "knee at 0.9": _knee(0.9),
    "knee at 0.6": _knee(0.6),
    "Hable": _through(_hable),
    "clipact (BT.2390)": tone_mapping.map_tones,
}


def main() -> None:
    """Measure, and print a row a way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder of SDR clips")
    parser.add_argument("--count", type=int, default=16, help="clips, spread over the folder")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    files = files_below(asked.data)
    files = [files[i * len(files) // asked.count] for i in range(asked.count)]
    words = embed_text(
        [f"a video of a person {phrase}" for phrase in LabelSet.load("kinetics400").phrases], asked.model
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        twin = Path(folder) / "twin.mp4"
        clips = [load_clip(file).frames for file in files]
        sdr = []
        for frames in clips:
            write(twin, frames, transfer=1)
            sdr.append(load_clip(twin).frames)
        expected = embed_videos(sdr, asked.model)
        for transfer, code in _TRANSFERS.items():
            for highlights in (False, True):
                coded = []
                for frames in clips:
                    write(twin, hdr_codes(frames, transfer, highlights=highlights), transfer=code)
                    coded.append(coded_frames(twin))
                for name, way in WAYS.items():
                    found = embed_videos(
                        [np.stack([way(frame, code) for frame in clip]) for clip in coded], asked.model
                    )
                    cosines = (expected * found).sum(axis=1)
                    same = ((expected @ words.T).argmax(1) == (found @ words.T).argmax(1)).mean()
                    row = {"transfer": transfer, "highlights": highlights, "way": name}
                    row |= {"cosine": float(cosines.mean()), "least": float(cosines.min()), "same_label": float(same)}
                    rows.append(row)
                    print(
                        f"{transfer:4} {'spread' if highlights else 'as SDR':7} {name:18} cosine {cosines.mean():.4f} "
                        f"(least {cosines.min():.4f}), same label {same:.2f}",
                        flush=True,
                    )
    if asked.json:
        asked.json.write_text(json.dumps({"model": asked.model, "clips": len(files), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
