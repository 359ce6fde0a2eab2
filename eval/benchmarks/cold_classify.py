"""How long one answer takes, from nothing: a new process each time, the text cache warm.

    python eval/benchmarks/cold_classify.py [--repeats 7] [--videos DIR] [--json]

`clipact classify` against plain scripts (eval/benchmarks/cold) with the same weights and frames, in turns, on two
videos made from examples/: 10 s of 640x360 and 60 s of 1920x1080. The answers must agree before anything is timed.
`clipact --help` is timed too.
Quoted: the best of the repeats as a ratio, and the largest resident memory of the process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LABELS = "read,eat,drink,walk,fall down,sit down,stand up,sleep,use laptop,talk on the phone"
COLD = Path(__file__).parent / "cold"


def make_video(path, *, seconds, width, height):
    """A clip of real frames: an example, repeated to length; one that is there already stays."""
    if path.is_file():
        return str(path)
    command = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i", str(ROOT / "examples/reading_newspaper.mp4")]
    command += ["-t", str(seconds), "-r", "30", "-vf", f"scale={width}:{height}", "-preset", "fast", str(path)]
    subprocess.run(command, check=True)
    return str(path)


def run(command):
    """Seconds, peak resident megabytes and the output of one new process."""
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        out.seek(0)
        return seconds, usage.ru_maxrss / 1024, out.read().decode()


def scores(output):
    """Label -> score, from clipact's JSON or a plain script's."""
    answer = json.loads(output)
    return {e["label"]: e["score"] for e in answer["predictions"]} if "predictions" in answer else answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--videos", type=Path, help="where the two videos are kept from run to run")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    python = sys.executable
    clipact = [python, "-m", "clipact.cli.app", "classify"]
    help_seconds = min(run([python, "-m", "clipact.cli.app", "--help"])[0] for _ in range(arguments.repeats))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CLIPACT_CACHE"] = f"{folder}/cache"
        kept = arguments.videos or Path(folder)
        videos = {
            "10 s 640x360": make_video(kept / "short.mp4", seconds=10, width=640, height=360),
            "60 s 1920x1080": make_video(kept / "long.mp4", seconds=60, width=1920, height=1080),
        }
        for name, video in videos.items():
            commands = {
                "clipact classify": [*clipact, video, "--labels", LABELS, "--top", "10", "--json", "--model", "mini"],
                "plain, usual imports, all frames": [python, str(COLD / "plain_usual.py"), video, LABELS],
                "plain, torch only, all frames": [python, str(COLD / "plain_torch.py"), video, LABELS, "--decode-all"],
                "plain, torch only, our decoding": [python, str(COLD / "plain_torch.py"), video, LABELS],
            }
            answers = {key: scores(run(command)[2]) for key, command in commands.items()}
            expected = answers["clipact classify"]
            for key, answer in answers.items():
                worst = max(abs(answer[label] - score) for label, score in expected.items())
                assert worst < 1e-5, (key, worst)
            times = {key: [] for key in commands}
            for _ in range(arguments.repeats):
                for key, command in commands.items():
                    times[key].append(run(command)[:2])
            ours = min(seconds for seconds, _ in times["clipact classify"])
            for key, runs in times.items():
                best = min(seconds for seconds, _ in runs)
                rows.append(
                    {
                        "video": name,
                        "program": key,
                        "seconds": round(best, 3),
                        "peak_megabytes": round(max(megabytes for _, megabytes in runs)),
                        "clipact_over_this": round(ours / best, 3),
                    }
                )
    if arguments.json:
        print(json.dumps({"help_seconds": round(help_seconds, 3), "rows": rows}))
        return
    print(f"clipact --help {help_seconds:.2f} s")
    for row in rows:
        print(
            f"{row['video']:<15} {row['program']:<33} {row['seconds']:7.2f} s {row['peak_megabytes']:6d} MB   "
            f"clipact / this = {row['clipact_over_this']:.2f}"
        )


if __name__ == "__main__":
    main()
