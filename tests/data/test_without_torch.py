import subprocess
import sys
from pathlib import Path

import clipact.data


def test_no_module_for_data_imports_torch():
    names = [f"clipact.data.{path.stem}" for path in Path(clipact.data.__file__).parent.glob("[!_]*.py")]
    script = f"import sys, {', '.join(names)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
