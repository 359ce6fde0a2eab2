"""Results become one page that a person reads: what came out, how sure it is, what went wrong, what would repeat it."""

from clipact.report.page import render_page, write_page

__all__ = ["render_page", "write_page"]
