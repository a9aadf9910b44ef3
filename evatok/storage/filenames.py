"""Safe file names from untrusted words: a class in a checkpoint, the name of a set in its manifest."""

from __future__ import annotations

_KEPT = " ._-@+=,()[]"
_LONGEST = 120  # bytes; file systems take 255, and endings are added


def file_name(words: str) -> str:
    """`words` as the name of one file or folder, never a path.

    Letters and digits of every script and a few marks stay, all else becomes "_"; names as people give them, such as
    "Apply Eye Makeup", come through as they are.
    """
    kept = "".join(mark if mark.isalnum() or mark in _KEPT else "_" for mark in words)
    short = kept.encode()[:_LONGEST].decode(errors="ignore").rstrip(" .")
    return f"_{short.lstrip('.')}" if short.startswith(".") or not short else short
