import io
import sys
import threading

import pytest

from clipact.cli import terminal
from clipact.cli.terminal import show_video_progress, track


@pytest.fixture
def watch(monkeypatch):
    """Gives a terminal that keeps what is drawn on it; to be called in the test, since pytest sets stderr before."""

    def begin():
        screen = io.StringIO()
        monkeypatch.setattr(screen, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(terminal, "_PATIENCE_SECONDS", -1.0)
        return screen

    return begin


def test_what_is_done_inside_a_video_is_drawn_with_the_bar_of_the_videos(watch):
    screen = watch()
    for _ in track(range(3), total=3, what="embedding"):
        assert list(show_video_progress(iter(range(5)), 5, "frames of [a].mp4")) == list(range(5))
    assert "embedding" in screen.getvalue()
    assert "frames of [a].mp4" in screen.getvalue()
    assert terminal._SCREEN._bars is None


def test_bars_of_several_threads_share_the_screen_and_one_that_fails_leaves_it(watch):
    screen = watch()
    meet = threading.Barrier(3)

    def decode(name, cause=""):
        for number in show_video_progress(range(4), None, name):
            if number == 2:
                meet.wait(timeout=30)
                if cause:
                    raise ValueError(cause)

    threads = [threading.Thread(target=decode, args=(f"reading {name}",)) for name in "ab"]
    for thread in threads:
        thread.start()
    with pytest.raises(ValueError, match="spoilt"):
        decode("frames of c", "spoilt")
    for thread in threads:
        thread.join()
    for words in ("reading a", "reading b", "frames of c"):
        assert words in screen.getvalue()
    assert terminal._SCREEN._bars is None


def test_what_is_quick_and_what_nobody_watches_shows_nothing(watch, monkeypatch):
    screen = watch()
    monkeypatch.setattr(terminal, "_PATIENCE_SECONDS", 60.0)
    assert list(show_video_progress(range(5), 5, "frames")) == list(range(5))
    assert screen.getvalue() == ""
    monkeypatch.setattr(terminal, "_PATIENCE_SECONDS", -1.0)
    monkeypatch.setattr(screen, "isatty", lambda: False)
    assert list(show_video_progress(range(5), 5, "frames")) == list(range(5))
    assert screen.getvalue() == ""
