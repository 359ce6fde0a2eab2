"""One row of what is embedded: a video, or a part of it."""

from dataclasses import dataclass

from clipact.video.open_source import VideoSource


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSource:
    """A video, or a part of it, to embed.

    source  what `clipact.video.open_source` opens: a file, a folder of numbered pictures, an address, bytes, an array
    name    what messages and files call it: the path as it was given, or as its table has it
    start_seconds, end_seconds  counted from the first frame
    draw    seeds what an augmentation draws for it; without an augmentation it counts for nothing
    """

    source: VideoSource
    name: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    draw: int = 0

    @property
    def span(self) -> tuple[float, float | None]:
        """Where it begins and ends, in seconds; None for the video's end."""
        return self.start_seconds or 0.0, self.end_seconds

    @property
    def title(self) -> str:
        """The name, and which part of the video."""
        if self.start_seconds is None and self.end_seconds is None:
            return self.name
        return f"{self.name} {self.start_seconds} {self.end_seconds}"
