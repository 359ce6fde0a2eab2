"""A table of labelled clips: stretches of the drawn videos, as many as a calibration needs."""

LABELS = ("drink", "read", "use laptop")


def write_table(path, videos, *, labels=LABELS, each=14):
    """Stretches of the fixture's three videos, and to each a label; those of one video are one group of three."""
    lines = ["path,label,start_seconds,end_seconds,group"]
    for number in range(3 * each):
        name, start = ("a.mp4", "b.mp4", "more/c.mp4")[number % 3], number // 3 / 10
        lines.append(f"{name},{labels[number % len(labels)]},{start:.1f},{start + 0.3:.1f},g{number // 3}")
    assert videos.is_dir()
    path.write_text("\n".join(lines) + "\n")
    return path
