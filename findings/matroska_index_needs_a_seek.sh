#!/usr/bin/env bash
# FFmpeg's index of a Matroska file, as PyAV hands it out, has one entry after opening, and all key frames after a seek.
#
# Versions: PyAV 18.1.0 (its own FFmpeg), numpy 2.4.6.
# Guess:    stream.index_entries of an open file is the index of the file, as it is in MP4.
# Seen:     the cues lie at the end of the file, and FFmpeg reads them when it first has to seek: before that the index
#           has the key frames that opening happened to meet. In MP4 it has every frame from the start, with decoding
#           times. Who takes len(index_entries) for the number of key frames of a Matroska file gets 1.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "av==18.1.0" "numpy==2.4.6"
cat > "$folder/look.py" <<'PYTHON'
import av
import numpy as np

for path in ("a.mkv", "a.mp4"):
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 10
        for number in range(100):
            picture = np.full((48, 64, 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        stream = container.streams.video[0]
        opened = len(stream.index_entries)
        container.seek(0, stream=stream)
        print(f"{path}: {opened} entries after opening, {len(stream.index_entries)} after a seek")
PYTHON
cd "$folder"
venv/bin/python look.py | tee seen
grep -qx 'a.mkv: 1 entries after opening, 10 after a seek' seen
grep -qx 'a.mp4: 100 entries after opening, 100 after a seek' seen
