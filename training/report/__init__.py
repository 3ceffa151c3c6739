"""Pages that need nothing else: no network, light and dark, readable on a phone.

document.py is what all of them look like, the audit's too; verdict.py says what a version is worth in words;
version.py is the report of a version, sections.py its parts; comparison.py is the page of compare and of sweep.
"""
