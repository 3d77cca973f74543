"""The report: a page, its plots and its contact sheet."""
