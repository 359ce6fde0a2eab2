"""Studies of the words: what is odd about labels before a run, and what each wording would have scored."""

from clipact.studies.lint import ADVICE, LabelWarning, LintReport, lint
from clipact.studies.prompt_sweep.grid import Grid, Variant, variants
from clipact.studies.prompt_sweep.sweep import Sweep, sweep

__all__ = ["ADVICE", "Grid", "LabelWarning", "LintReport", "Sweep", "Variant", "lint", "sweep", "variants"]
