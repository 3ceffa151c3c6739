"""The audit: what is wrong or suspicious in a folder of labelled photos, before anything is trained on it.

Findings never stop a run; they say what was seen, how much of it, and what to do. What follows from pixels, names and
labels alone is findings.py; label errors, which take a backbone, are labels.py; the terminal, JSON and HTML are
terminal.py, layout.py and page.py; the command is command.py.
"""
