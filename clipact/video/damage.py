"""Follow damage from packets to frames: what a decoder rejects or marks spoils all frames predicted from it."""

from typing import Any

_BIDIRECTIONAL = 3  # av.VideoFrame.pict_type of B-frames, which others are rarely predicted from


class DamageTracker:
    """Tells of frames, as they come out of a decoder, which are damaged.

    rejected  packets since the start that the decoder rejected
    """

    def __init__(self) -> None:
        self.rejected = 0
        self._spoilt = False

    def restart(self) -> None:
        """Forget what came before: a decoder begins anew, at a key frame."""
        self._spoilt = False

    def reject(self) -> None:
        """Note that the decoder rejected a packet: what follows may be predicted from what it held."""
        self.rejected += 1
        self._spoilt = True

    def follow(self, frame: Any) -> bool:
        """Whether this frame (av.VideoFrame), the next one to come out, is damaged or predicted from what was."""
        if frame.is_corrupt:
            self._spoilt = self._spoilt or frame.pict_type != _BIDIRECTIONAL
            return True
        if frame.key_frame:
            self._spoilt = False
        return self._spoilt


def damage_notes(packets: int, *, rejected: int = 0) -> tuple[str, ...]:
    """Notes when packets came damaged, which MPEG-TS can tell, or were rejected by the decoder."""
    came = (f"{packets} packets came damaged",) if packets else ()
    return came + ((f"{rejected} packets could not be decoded",) if rejected else ())
