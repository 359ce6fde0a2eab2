import subprocess
import sys

import clipact


def test_the_public_names_are_these():
    assert clipact.__all__ == [
        "Clip",
        "ClipSpec",
        "ClipactError",
        "DualEncoder",
        "LabelSet",
        "Prediction",
        "PromptSet",
        "Recognizer",
        "SupervisedClassifier",
        "ZeroShotClassifier",
        "embed_text",
        "embed_videos",
        "load_clip",
        "load_model",
    ]
    assert len(clipact.__all__) <= 20


def test_every_public_name_is_there_and_documented():
    for name in clipact.__all__:
        assert getattr(clipact, name).__doc__


def test_the_command_line_starts_without_torch():
    heavy = "torch torchvision open_clip transformers timm faiss av numpy".split()
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "import clipact\n"
        "from clipact.cli.app import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0 and 'classify' in result.output\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
