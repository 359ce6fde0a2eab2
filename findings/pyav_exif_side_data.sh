#!/usr/bin/env bash
# PyAV 18.1 cannot give any side data of a frame that carries EXIF, not even the display matrix made from it.
#
# Versions: av 18.1.0 (FFmpeg 8.1), Pillow 12.0.0.
# Guess:    frame.side_data of a JPEG frame with EXIF has the display matrix, and leaves out what PyAV cannot name.
# Seen:     frame.side_data raises ValueError, "31 is not a valid Type": its enumeration ends at 27 (VIDEO_HINT), and
#           FFmpeg 8 sends EXIF as 31. frame.rotation works. FFmpeg's sidedata filter takes 31 off by its number,
#           after which the display matrix can be read.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "av==18.1.0" "pillow==12.0.0"
cd "$folder"
venv/bin/python - <<'PYTHON' | tee seen
from fractions import Fraction

import av
from av.filter import Graph
from PIL import Image

exif = Image.Exif()
exif[0x0112] = 6
Image.new("RGB", (64, 48)).save("turned.jpg", exif=exif)
with av.open("turned.jpg", format="mjpeg") as container:
    frame = next(container.decode(video=0))
try:
    print("side data:", len(frame.side_data))
except ValueError as error:
    print("side data:", error)
print("rotation:", frame.rotation)
graph = Graph()
steps = [
    graph.add_buffer(width=64, height=48, format=frame.format, time_base=Fraction(1)),
    graph.add("sidedata", "mode=delete:type=31"),
    graph.add("buffersink"),
]
for before, after in zip(steps, steps[1:]):
    before.link_to(after)
graph.configure()
graph.push(frame)
print("without 31:", [data.type.name for data in graph.pull().side_data])
PYTHON
grep -qx 'side data: 31 is not a valid Type' seen
grep -qx 'rotation: -90' seen
grep -qx "without 31: \['DISPLAYMATRIX'\]" seen
