from clipact.evaluate.results import save_result
from tests.report.conftest import some_scores


def test_the_command_writes_a_page(clipact, tmp_path):
    folders = [save_result(some_scores(name=name), tmp_path / name) for name in ("one", "two")]
    done = clipact("report", *folders, "--data", tmp_path, "--out", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert "no picture was found below" in done.err
    assert "one" in (tmp_path / "page.html").read_text()
    assert clipact("report", tmp_path / "none", "--out", tmp_path / "page.html").code == 1
    assert clipact("report", folders[0], "--data", tmp_path / "none").code == 2
