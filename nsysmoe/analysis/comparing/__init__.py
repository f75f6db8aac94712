"""Two arms side by side: changes with intervals, verdicts, findings, the whole report."""
