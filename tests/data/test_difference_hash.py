import numpy as np

from clipact.data.fingerprint import NEAR, difference_hash, hash_picture, near_pairs
from tests.data.drawing import blocks


def test_its_bits_are_neighbours_compared():
    brighter = np.repeat(np.repeat(np.arange(9, dtype=np.uint8)[None, :, None] * 20, 8, 0), 3, 2)
    assert difference_hash(brighter).tobytes() == b"\xff" * 8
    assert difference_hash(brighter[:, ::-1].copy()).tobytes() == b"\0" * 8
    one = np.zeros((8, 9, 3), np.uint8)
    one[2, 4:] = 9  # brighter than its left neighbour in the third row, between the fourth pixel and the fifth
    assert difference_hash(one).tolist() == [0, 0, 0b00010000, 0, 0, 0, 0, 0]


def test_what_was_scaled_and_coded_again_is_near_and_another_picture_is_not(tmp_path):
    blocks(0, (90, 80)).save(tmp_path / "a.png")
    blocks(0, (45, 40)).save(tmp_path / "b.JPG", quality=60)
    blocks(0, (180, 160)).save(tmp_path / "c.webp", quality=60)
    blocks(1, (90, 80)).save(tmp_path / "d.png")
    found = [hash_picture(tmp_path / name) for name in ("a.png", "b.JPG", "c.webp", "d.png")]
    assert all(len(one) == 16 for one in found)
    hashes = np.frombuffer(bytes.fromhex("".join(found)), np.uint8).reshape(-1, 8)
    assert {other for row, other, _ in near_pairs(hashes, hashes) if row == 0} == {0, 1, 2}


def test_what_is_no_picture_has_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    (tmp_path / "b.mp4").write_bytes(b"no")
    assert [hash_picture(tmp_path / name) for name in ("a.png", "b.mp4", "gone.png")] == ["", "", ""]


def test_near_pairs_are_those_of_counting_bits():
    rng = np.random.default_rng(0)
    theirs = rng.integers(0, 256, (40, 8), dtype=np.uint8)
    flips = np.packbits(rng.random((600, 64)) < 0.1, axis=1)
    ours = theirs[rng.integers(0, 40, 600)] ^ flips
    apart = np.unpackbits(ours[:, None] ^ theirs[None], axis=2).sum(2)
    wanted = [(row, other, apart[row, other]) for row, other in zip(*np.nonzero(apart <= NEAR), strict=True)]
    assert 100 < len(wanted) < 600
    assert list(near_pairs(ours, theirs)) == wanted
    assert list(near_pairs(ours[:0], theirs)) == []
