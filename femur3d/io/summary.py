"""CASE.json, read again: what `femur3d.infer` said of a case, and which files it wrote for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 20  # a summary has some kilobytes


def read_summary(path: Path) -> dict[str, Any]:
    """A summary, with 'model' and 'files', a list of names; empty where there is none, or another JSON file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    files = summary.get("files") if isinstance(summary, dict) and "model" in summary else None
    return summary if isinstance(files, list) and all(isinstance(name, str) for name in files) else {}
