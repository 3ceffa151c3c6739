"""The audit as JSON, for scripts; docs/audit.md describes the layout.

Fields are only added while SCHEMA_VERSION stays.
"""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from training.audit.findings import Audit
from training.dataset import printable

SCHEMA_VERSION: Final = 1


def write(audit: Audit, path: Path) -> None:
    """Writes the whole audit: every finding with every example, and the files that cannot be used."""
    path.write_text(json.dumps(layout(audit), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def layout(audit: Audit) -> dict[str, Any]:
    """What `write` writes, as values of JSON."""
    dataset = audit.dataset
    sizes = Counter(image.label for image in dataset.images)
    splits = Counter(image.split for image in dataset.images if image.split)
    return {
        "schema_version": SCHEMA_VERSION,
        "data": {
            "root": printable(str(dataset.root)),
            "sha256": dataset.sha256,
            "images": len(dataset.images),
            "unreadable": len(dataset.rejected),
            "classes": {name: sizes[name] for name in dataset.class_names},
            "splits": dict(sorted(splits.items())),
        },
        "findings": [asdict(finding) for finding in audit.findings],
        "left_out": list(audit.left_out),
        "quarantine": [
            {"path": dataset.relative(one.path), "code": one.code, "reason": one.reason} for one in dataset.rejected
        ],
    }
