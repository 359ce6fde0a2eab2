import av
import numpy as np
import pytest

from clipact.video.load import load_clip
from clipact.video.tone_mapping import HDR_TRANSFERS, hlg_light, map_tones, pq_code, pq_light

from .corpus import ffmpeg

_PQ, _HLG = 16, 18


def _grey(code: float) -> np.ndarray:
    return np.full((1, 1, 3), round(65535 * code), np.uint16)


def test_the_curves_are_those_of_bt_2100():
    # BT.2408, table 1: 203 cd/m2 is 58 % of PQ, and 75 % of HLG on a display of 1000 cd/m2
    assert pq_code(np.array(1.0)) == pytest.approx(0.5807, abs=1e-4)
    assert pq_light(np.array([0.0, 0.5807, 1.0])) == pytest.approx([0, 1, 10_000 / 203], rel=1e-3, abs=1e-9)
    light = np.linspace(0, 40, 200)
    assert np.allclose(pq_light(pq_code(light)), light, atol=1e-6)
    assert hlg_light(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    assert 1000 * hlg_light(np.array(0.75)) ** 1.2 == pytest.approx(203, abs=1)


@pytest.mark.parametrize("transfer", HDR_TRANSFERS)
def test_grey_stays_grey_brighter_is_brighter_and_the_peak_is_white(transfer):
    ramp = np.repeat(np.linspace(0, 65535, 4096).astype(np.uint16)[None, :, None], 3, axis=2)
    mapped = map_tones(ramp, transfer)[0].astype(int)
    assert np.ptp(mapped, axis=1).max() <= 1
    assert np.diff(mapped[:, 1]).min() >= -1  # tables of 4,096 steps round
    assert np.diff(mapped[::64, 1]).min() >= 0
    assert np.diff(mapped[:, 1]).max() <= 2
    assert tuple(mapped[0]) == (0, 0, 0)
    assert tuple(mapped[-1]) == (255, 255, 255)


def test_dark_and_middle_tones_have_the_light_that_they_had():
    for nits in (1, 5, 20, 50, 90):
        expected = 255 * (nits / 203) ** (1 / 2.4)
        assert map_tones(_grey(float(pq_code(np.array(nits / 203)))), _PQ)[0, 0, 1] == pytest.approx(expected, abs=1)
    # HLG: light of the scene by the system gamma of 1.2, at 1000 cd/m2
    nits = 1000 * float(hlg_light(np.array(0.5))) ** 1.2
    assert map_tones(_grey(0.5), _HLG)[0, 0, 1] == pytest.approx(255 * (nits / 203) ** (1 / 2.4), abs=1)
    # reference white is not yet the brightest: highlights have room above it
    assert 225 < map_tones(_grey(0.5807), _PQ)[0, 0, 1] < 250


def test_the_primaries_are_turned_into_those_of_bt_709():
    # red of BT.709, in BT.2020: 0.6274, 0.0691, 0.0164 (BT.2087, table 2), at 50 cd/m2
    light = np.array([0.6274, 0.0691, 0.0164]) * 50 / 203
    coded = np.round(65535 * pq_code(light)).astype(np.uint16)[None, None]
    red = map_tones(coded, _PQ)[0, 0].astype(int)
    assert red[0] == pytest.approx(255 * (50 / 203) ** (1 / 2.4), abs=1)
    assert red[1:].max() <= 12
    kept = map_tones(coded, _PQ, bt2020=False)[0, 0].astype(int)
    assert kept == pytest.approx(255 * light ** (1 / 2.4), abs=1)


@pytest.mark.parametrize(("name", "off"), [("smpte2084", 15), ("arib-std-b67", 20)])
def test_a_twin_in_hdr_looks_like_the_plain_clip(tmp_path, name, off):
    """Bars, by another program: their greys alike, their colours nearer than without (45 and 34 of 255 off)."""
    plain, twin = tmp_path / "plain.mp4", tmp_path / "twin.mp4"
    source = "-f lavfi -i smptehdbars=size=64x48:rate=5:duration=1"
    ffmpeg(f"{source} -pix_fmt yuv420p -colorspace bt709 -color_primaries bt709 -color_trc bt709 {{}}", plain)
    ffmpeg(
        f"-i {{}} -vf zscale=t={name}:p=bt2020:m=bt2020nc:npl=203,format=yuv420p10le -c:v libx264 "
        f"-color_primaries bt2020 -colorspace bt2020nc -color_trc {name} {{}}",
        plain,
        twin,
    )
    wanted, clip = load_clip(plain, frames=2).frames.astype(int), load_clip(twin, frames=2)
    assert np.abs(wanted - clip.frames).mean() < off
    assert np.abs(wanted - clip.frames)[:, 2:20, 1:7].max() <= 2  # a grey bar
    assert any("high dynamic range" in note for note in clip.notes)
    with av.open(str(twin)) as container:
        flat = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(wanted[0] - flat).mean() > 1.5 * off
    assert np.abs(wanted[0] - flat)[2:20, 1:7].min() >= 8
