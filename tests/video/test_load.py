import errno
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError, VideoError
from clipact.video import decode_pyav
from clipact.video.clip import Timeline
from clipact.video.decode_pyav import PyavVideo, feed
from clipact.video.load import load_clip, load_clips
from clipact.video.media import Media
from clipact.video.sampling import segment_centers, uniform
from clipact.video.transforms import fit_frame

from .drawing import draw_video, number_in


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    return draw_video(tmp_path_factory.mktemp("video") / "numbers.mp4")


def test_the_frames_are_those_that_the_ledger_says(video):
    clip = load_clip(video)
    assert [stamp.index for stamp in clip.stamps] == segment_centers(40, 8)
    assert [number_in(frame) for frame in clip.frames] == segment_centers(40, 8)
    assert [stamp.seconds for stamp in clip.stamps] == [index / 10 for index in segment_centers(40, 8)]
    assert clip.duration_seconds == 4.0
    assert (clip.source, clip.decoder, clip.notes) == (str(video), "pyav", ())


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.mov"])
@pytest.mark.parametrize(("codec", "b_frames"), [("libx264", 2), ("libx264", 0), ("mpeg4", 0), ("mpeg4", 2)])
def test_every_frame_of_every_container_is_found(tmp_path, name, codec, b_frames):
    path = draw_video(tmp_path / name, frames=30, codec=codec, b_frames=b_frames)
    spec = ClipSpec(frames=30, sampling="uniform")
    clip = load_clip(path, frames=30)
    assert [number_in(frame) for frame in clip.frames] == list(range(30))
    assert [stamp.index for stamp in clip.stamps] == list(range(30))
    assert np.allclose(np.diff([stamp.seconds for stamp in clip.stamps]), 0.1, atol=1e-3)
    few = load_clip(path, frames=3)
    assert [number_in(frame) for frame in few.frames] == segment_centers(30, 3)
    assert load_clip(path, spec=spec).frames.shape == (30, 224, 224, 3)


def test_the_same_pixels_as_decoding_everything(video):
    with av.open(str(video)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frames in (1, 3, 8, 40):
        clip = load_clip(video, frames=frames)
        for stamp, frame in zip(clip.stamps, clip.frames, strict=True):
            assert np.array_equal(frame, every[stamp.index])


def test_a_spec_chooses_frames_and_fits_each(video):
    spec = ClipSpec(frames=5, sampling="uniform", size=(32, 32))
    clip = load_clip(video, spec=spec)
    assert [stamp.index for stamp in clip.stamps] == uniform(40, 5)
    native = load_clip(video, frames=40)
    for stamp, frame in zip(clip.stamps, clip.frames, strict=True):
        assert np.array_equal(frame, fit_frame(native.frames[stamp.index], spec))


def test_times_select_frames(video):
    assert [s.index for s in load_clip(video, 1.0, 2.0, frames=10).stamps] == list(range(10, 20))
    assert [s.index for s in load_clip(video, 3.5, frames=5).stamps] == list(range(35, 40))
    assert [s.index for s in load_clip(video, None, 0.3, frames=3).stamps] == [0, 1, 2]
    assert [s.index for s in load_clip(video, 1.02, 1.04, frames=1).stamps] == [10]
    assert [s.index for s in load_clip(video, 3.95, frames=1).stamps] == [39]


def test_impossible_times(video):
    with pytest.raises(VideoError, match=r"4\.000 seconds"):
        load_clip(video, 4.0)
    with pytest.raises(UsageError, match="not after"):
        load_clip(video, 2.0, 1.0)


@pytest.mark.parametrize("way", ["uniform", "segment_centers", "strided", "fps", "random"])
def test_fewer_frames_than_asked_repeat_and_are_noted_or_refused(video, way):
    sampling = "segment_centers" if way == "random" else way
    spec = ClipSpec(frames=6, sampling=sampling, stride=1, rate_fps=10.0, size=(16, 16))

    def load(end, short="repeat"):
        generator = np.random.default_rng(1) if way == "random" else None
        return load_clip(video, 0.0, end, spec=spec, generator=generator, short=short)

    clip = load(0.3)
    assert {s.index for s in clip.stamps} <= {0, 1, 2}
    assert clip.notes == ("6 frames asked for, 3 there: some repeat",)
    with pytest.raises(VideoError, match="6 frames asked for, 3 there; ask for fewer"):
        load(0.3, "error")
    assert load(0.6, "error").notes == ()


def test_frames_that_repeat_though_there_are_enough(video):
    """A window longer than the video holds its last frame; moments closer than frames show some twice."""
    for spec in (ClipSpec(frames=6, sampling="strided", stride=8), ClipSpec(frames=6, sampling="fps", rate_fps=20.0)):
        clip = load_clip(video, 0.0, 2.0, spec=spec)
        distinct = len({s.index for s in clip.stamps})
        assert clip.notes == (f"6 frames asked for, {distinct} of the 20 there used: some repeat",)
        with pytest.raises(VideoError, match="of the 20 there used"):
            load_clip(video, 0.0, 2.0, spec=spec, short="error")


def test_how_many_frames_were_used_is_said_where_a_window_reaches_past_the_end(tmp_path):
    video = draw_video(tmp_path / "short.mp4", frames=7, rate=25)
    clip = load_clip(video, spec=ClipSpec(frames=8, sampling="fps", rate_fps=2.0))
    assert [stamp.index for stamp in clip.stamps] == [6] * 8
    assert clip.notes == ("8 frames asked for, 1 of the 7 there used: some repeat",)


@pytest.mark.parametrize("base", [Fraction(1, 10), Fraction(1, 1000), Fraction(1, 12800), Fraction(1, 90000)])
def test_a_window_of_time_does_not_depend_on_the_time_base(base):
    ticks = np.array([round(Fraction(number, 10) / base) for number in range(40)])
    timeline = Timeline(ticks=ticks, time_base=base, last_ticks=round(Fraction(1, 10) / base))

    def shown(start, end):
        return list(timeline.within(start, end, name="a"))

    assert shown(0.5, 0.55) == [5]
    assert shown(0.52, 0.53) == [5]
    assert shown(0.46, 0.49) == [4]
    assert shown(0.5, 0.6) == [5]
    assert shown(0.4996, 0.5996) == [5]  # rounded to milliseconds, as people write times
    assert shown(0.45, 0.65) == [5, 6]
    assert shown(None, 0.04) == [0]
    assert shown(3.99, None) == [39]


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.ts"])
def test_a_window_between_two_frames_in_files(tmp_path, name):
    video = draw_video(tmp_path / name, codec="mpeg4", b_frames=0, frames=20)
    for start, end, number in ((0.5, 0.55, 5), (0.52, 0.53, 5), (1.0, 1.1, 10), (1.95, None, 19)):
        clip = load_clip(video, start, end, frames=1)
        assert [number_in(frame) for frame in clip.frames] == [number]


def test_the_zoos_video_swin_takes_every_other_frame_of_30_a_second(tmp_path):
    spec = ClipSpec(frames=32, sampling="fps", rate_fps=15.0, size=(16, 16))
    for name in ("a.mp4", "a.mkv"):
        video = draw_video(tmp_path / name, frames=100, rate=30, codec="mpeg4", b_frames=0)
        numbers = [stamp.index for stamp in load_clip(video, spec=spec).stamps]
        assert numbers == list(range(numbers[0], numbers[0] + 64, 2))


def test_an_end_past_the_end_is_noted(video):
    assert load_clip(video, 3.0, 9.0, frames=2).notes == ("it ends at 4.000 s, before the end asked for, 9 s",)
    assert load_clip(video, 3.0, 4.0, frames=2).notes == ()


def test_a_second_way_of_decoding_draws_the_same_frames(video, monkeypatch):
    expected = load_clip(video, frames=4, generator=np.random.default_rng(3)).stamps
    kept = PyavVideo.decode

    def fail(self, timeline, indices):
        yield from list(kept(self, timeline, indices))[:-1]

    monkeypatch.setattr(PyavVideo, "decode", fail)  # one frame is left out, which must not pass for a frame
    clip = load_clip(video, frames=4, generator=np.random.default_rng(3))
    assert clip.stamps == expected
    assert [number_in(frame) for frame in clip.frames] == [s.index for s in clip.stamps]


@pytest.mark.parametrize("resize", ["squash", "longest"])
def test_three_crops_need_something_to_crop(video, resize):
    with pytest.raises(UsageError, match="nothing is cropped"):
        load_clips(video, ClipSpec(resize=resize), crops=3)


def test_clips_are_equal_spans_each_sampled_alike(video):
    spec = ClipSpec(frames=4, size=(16, 16))
    clips = load_clips(video, spec, clips=5)
    assert [[s.index for s in clip.stamps] for clip in clips] == [
        [8 * k + i for i in segment_centers(8, 4)] for k in range(5)
    ]
    (one,) = load_clips(video, spec)
    assert np.array_equal(one.frames, load_clip(video, spec=spec).frames)
    with pytest.raises(UsageError):
        load_clips(video, spec, clips=0)


def test_what_is_no_video_is_named_with_its_cause(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("This is not a video. " * 50)
    (tmp_path / "empty.mp4").touch()
    for path, cause in [
        (tmp_path / "missing.mp4", "no such file"),
        (tmp_path, "folder"),
        (text, "not a video"),
        (tmp_path / "empty.mp4", "empty"),
    ]:
        with pytest.raises(VideoError, match=cause) as raised:
            load_clip(path)
        assert raised.value.path == str(path)


def test_an_unreadable_file(video, monkeypatch):
    def refuse(path, *_):  # permissions do not bind root, which tests may run as
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(VideoError, match=f"{video}: Permission denied"):
        load_clip(video)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoError, match="no video stream, only audio"):
        load_clip(path)


@pytest.mark.parametrize("name", ["cut.mkv", "cut.ts", "cut.avi"])
def test_a_file_that_stops_half_way_gives_what_is_there(tmp_path, name):
    whole = draw_video(tmp_path / f"whole-{name}", b_frames=0)
    cut = tmp_path / name
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = load_clip(cut)
    assert 0 < clip.stamps[-1].index < 35
    assert [number_in(frame) for frame in clip.frames] == [s.index for s in clip.stamps]


def test_a_cut_file_whose_index_is_whole_says_so(tmp_path, video):
    front = tmp_path / "front.mp4"
    with av.open(str(video)) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(front.read_bytes()[: front.stat().st_size * 2 // 3])
    clip = load_clip(cut, frames=4)
    assert any("cut short" in note and "of 40" in note for note in clip.notes)
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(VideoError, match="index is missing"):
        load_clip(cut)


@pytest.mark.parametrize("frames", [1, 2, 8])
def test_only_what_wanted_frames_hang_on_is_decoded(tmp_path, monkeypatch, frames):
    path = draw_video(tmp_path / "long.mp4", frames=200, gop=10, b_frames=0)
    media = Media(f"file:{path}", name=path.name)
    keys = [key.position for key in PyavVideo(media).timeline().keys]
    media.close()
    fed = []
    monkeypatch.setattr(
        decode_pyav, "feed", lambda context, packet, **more: fed.append(packet) or feed(context, packet)
    )
    numbers = [stamp.index for stamp in load_clip(path, frames=frames).stamps]
    last = {max(key for key in keys if key <= number): number for number in numbers}
    assert sum(packet is not None for packet in fed) == sum(number - key + 1 for key, number in last.items())


def test_decoding_does_not_import_torch(video):
    code = "import sys; from clipact.video.load import load_clip; load_clip(sys.argv[1]); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code, str(video)], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "False"
