"""Pages as a browser shows them; tests that need one are skipped where there is none, and fail in CI."""

import json
import os
import re
import shutil
import subprocess

import pytest

from tests.video.corpus import need


@pytest.fixture(scope="module")
def chromium():
    """A headless browser: the command line before the page's address."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    need("chromium", program is not None)
    return [program, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]


def browse(chromium, folder, *words):
    """What the browser writes, and its log."""
    done = subprocess.run(
        [*chromium, f"--user-data-dir={folder / 'profile'}", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | {"HOME": str(folder)},
    )
    return done.stdout, done.stderr


def on_a_phone(chromium, page):
    """The size of a page in a frame 360 pixels wide, how many pictures it has and how many are broken; and the log."""
    (page.parent / "phone.html").write_text(
        f"""<iframe src="{page.name}" style="width: 360px; height: 800px; border: 0" onload="
        const page = this.contentDocument, root = page.documentElement;
        document.body.textContent = JSON.stringify({{width: root.scrollWidth, height: root.scrollHeight,
            broken: [...page.images].filter(one => !one.naturalWidth).length,
            pictures: page.images.length}})"></iframe>"""
    )
    told, log = browse(
        chromium, page.parent, "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom",
        (page.parent / "phone.html").as_uri(),
    )  # fmt: skip
    return json.loads(re.search(r"\{.*\}", told)[0]), log
