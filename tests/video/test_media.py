from contextlib import closing

from clipact.video.media import Media
from tests.video.drawing import draw_video


class _Demuxed:
    """PyAV's generator of packets, which does not free what it holds unless it is closed or read to its end."""

    def __init__(self, packets):
        self.packets, self.closed = packets, False

    def __iter__(self):
        return self.packets

    def close(self):
        self.closed = True
        self.packets.close()


class _Container:
    def __init__(self, container):
        self.container, self.demuxed = container, []

    def demux(self, stream):
        self.demuxed.append(_Demuxed(self.container.demux(stream)))
        return self.demuxed[-1]

    def close(self):
        self.container.close()


def test_packets_that_are_not_read_to_their_end_are_freed(tmp_path):
    with closing(Media(f"file:{draw_video(tmp_path / 'a.mp4', frames=5)}", name="a.mp4")) as media:
        media._container = container = _Container(media._container)
        packets = media.packets()
        next(packets)
        assert not container.demuxed[0].closed
        del packets
        assert container.demuxed[0].closed
