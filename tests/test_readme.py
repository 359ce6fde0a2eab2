"""The README says what is so: the tree, the commands, the Python."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from clipact.cli.app import app, main
from clipact.cli.train import train
from clipact.errors import ModelError
from clipact.models import towers
from clipact.train.initialization import make_encoder
from clipact.train.recipe import Recipe, load_recipe
from tests.calibration.table import write_table
from tests.contracts.test_towers import SPEC, VIDEO

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _block(marker: str) -> str:
    match = re.search(rf"<!-- {marker} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    assert match, f"README.md has no block marked {marker!r}"
    return match.group(1)


def _tracked_folders() -> set[str]:
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    folders = {str(parent) for name in files.stdout.splitlines() for parent in Path(name).parents} - {"."}
    return {f for f in folders if not f.startswith(".") and not f.startswith("tests/")}


def test_the_tree_names_every_folder_and_no_other():
    named, above = set(), []
    for line in _block("tree").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], line.split()[0].rstrip("/")]
        named.add("/".join(above))
    deeper = {f for f in _tracked_folders() if f.startswith("clipact/_assets/")}
    assert named == _tracked_folders() - deeper


def test_the_table_of_commands_is_complete():
    real = set(get_command(app).commands)
    named = set(re.findall(r"^\| `clipact (\w+)", README, re.MULTILINE))
    assert named == real


def test_the_two_commands_are_one_line_each_and_install():
    for marker in ("run command", "test command"):
        lines = _block(marker).strip().splitlines()
        assert len(lines) == 1
        assert "pip install" in lines[0]


def _rows(output):
    """Labels with their percentages, which another processor may round otherwise; and the lines without."""
    output = "\n".join(line.rstrip() for line in output.strip().splitlines())
    scores = {label: float(share) for label, share in re.findall(r"^ (\S.*?)  .* ([\d.]+)%$", output, re.MULTILINE)}
    return scores, [line for line in output.splitlines() if not line.endswith("%")]


def test_the_first_command_prints_what_is_said(monkeypatch, capsys):
    words = shlex.split(_block("run command").partition("/bin/clipact ")[2])
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["clipact", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    done = capsys.readouterr()
    printed, said = _rows(done.err + done.out), _rows(_block("run output"))
    assert not stopped.value.code
    assert list(printed[0]) == list(said[0])
    assert printed[0] == pytest.approx(said[0], abs=0.3)
    assert printed[1] == said[1]


def test_the_examples_are_small_and_all_described():
    table = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    clips = {path.name: path.stat().st_size for path in (ROOT / "examples").glob("*.mp4")}
    assert set(re.findall(r"^\| (\w+\.mp4) \|", table, re.MULTILINE)) == set(clips)
    assert len(clips) == 4
    assert max(clips.values()) < 1_000_000


def test_the_prompt_experiment_is_ten_lines_and_tells_wordings_apart(monkeypatch, capsys):
    code = re.search(r"A prompt experiment.*?```python\n(.*?)```", README, re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    for name in ("PromptSet", "embed_groups", "evaluate"):
        assert name in code
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    lines = [line.rsplit(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, *_ in lines] == ["bare", "single", "at home"]
    assert len({alike for _, alike, _ in lines}) == 3


def test_the_python_example_is_six_lines_and_runs(monkeypatch, tmp_path):
    code = re.search(r"## Python\n\n```python\n(.*?)```", README, re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) == 6
    for name in ("a.mp4", "b.mp4"):
        code = code.replace(f'"{name}"', '"examples/eating_biscuits.mp4"')
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})


def test_the_commands_of_trust_run_and_the_python_says_the_same(monkeypatch, tmp_path, tiny, videos, capsys):
    write_table(tmp_path / "known.csv", videos)
    (tmp_path / "new.mp4").write_bytes((videos / "a.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPACT_MODEL", str(tiny))
    for line in _block("trust commands").strip().splitlines():
        monkeypatch.setattr(sys, "argv", [*shlex.split(line), *(["--data", str(videos)] * ("known.csv" in line))])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code, line
    told = capsys.readouterr().out
    assert "90% label set: " in told
    exec(compile(_block("trust python").replace('"mini"', repr(str(tiny))), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith(("none of these", "("))


def _recipe(folder, *, tower=None):
    """The README's own.toml, with another tower's lines where one is named."""
    lines = _block("train recipe").splitlines()
    if tower is not None:
        lines = [line for line in lines if not line.startswith(("init.visual", "visual.trainable"))]
        lines += _block(f"train {tower}").splitlines()
    path = folder / "own.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_recipe_in_the_help_is_the_readme_s(tmp_path):
    taught = train.__doc__.partition("on top of mini:\n")[2].partition("\n\n")[0]
    assert [line.strip() for line in taught.splitlines()] == _block("train recipe").splitlines()
    assert load_recipe(_recipe(tmp_path), Recipe).init.model == "mini"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "labels"),
    [
        ("own", {"eating biscuits", "falling", "reading"}),
        ("i3d", {"reading a newspaper", "eating biscuits", "drinking", "falling", "reading a book while walking"}),
    ],
)
def test_the_readme_s_recipes_are_trained_and_answer(recipe, labels, monkeypatch, tmp_path, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "clips.csv").write_text(_block("train table"), encoding="utf-8")
    _recipe(tmp_path)
    (tmp_path / "i3d.toml").write_text(_block("train i3d"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for line in _block("train commands" if recipe == "own" else "train i3d commands").strip().splitlines():
        words = shlex.split(line)
        monkeypatch.setattr(sys, "argv", words + ["--set", "train.steps=2"] * (words[1] == "train"))
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code, line
    printed, _ = _rows(capsys.readouterr().out)
    assert set(printed) == labels


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["vivit", "swin3d"])
def test_the_readme_s_other_towers_can_be_begun_from(tower, tmp_path):
    init = load_recipe(_recipe(tmp_path, tower=tower), Recipe).init
    described = towers.describe(make_encoder(init, seed=0).visual)
    assert described["tower"] == tower


_LENGTHS = (1, 2, 3, 6, 15, 16, 18, 32)
_ALLOWED = {
    "any": lambda frames: True,
    "multiples of its tubelet, 2": lambda frames: frames % 2 == 0,
    "even to 16, then multiples of 16": lambda frames: frames % 2 == 0 and (frames <= 16 or frames % 16 == 0),
}


def _rows_of_towers():
    table = re.search(r"<!-- video towers -->\n(.*?)\n\n", README, re.DOTALL).group(1)
    rows = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    return {(tower, part): facts for tower, part, *facts in rows}


def _examples():
    """The contract's small towers by their row; a ViViT with its default tubelet."""
    return {
        **{
            ("frame_aggregator", table["aggregator"]): table
            for table in VIDEO["frame_aggregator"]
            if "aggregator" in table
        },
        ("vivit", ""): next(table for table in VIDEO["vivit"] if "tubelet" not in table),
        ("swin3d", ""): VIDEO["swin3d"][0],
        ("i3d", ""): VIDEO["i3d"][0],
        ("attention_pool", ""): VIDEO["attention_pool"][0],
        ("xclip", ""): VIDEO["xclip"][0],
        **{("transformers", table["model"]["model_type"]): table for table in VIDEO["transformers"]},
    }


def test_the_table_of_towers_is_complete():
    assert set(_rows_of_towers()) == set(_examples())
    assert {tower for tower, _ in _rows_of_towers()} == set(towers.VIDEO_TOWERS)


@pytest.mark.parametrize("row", _rows_of_towers(), ids="-".join)
@torch.inference_mode()
def test_the_table_of_towers_says_what_is_so(row):
    sees_order, allowed, positions = _rows_of_towers()[row]
    tower = towers.visual_from({"tower": row[0], **_examples()[row]}, SPEC).eval()
    assert sees_order == ("no" if tower.order_free else "yes")
    taken = []
    for frames in _LENGTHS:
        try:
            tower(torch.zeros(1, frames, 3, *SPEC.size))
            taken.append(frames)
        except ModelError:
            continue
    assert taken == [frames for frames in _LENGTHS if _ALLOWED[allowed](frames)]
    assert positions
