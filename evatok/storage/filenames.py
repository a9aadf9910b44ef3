"""Safe file names from untrusted words: a class in a checkpoint, the name of a set in its manifest."""

from __future__ import annotations

_KEPT = " ._-@+=,()[]"
_LONGEST = 120  # bytes; file systems allow 255, and suffixes are added


def file_name(words: str) -> str:
    """Turn `words` into the name of one file or folder, never a path.

    Letters and digits of every script and a few marks are kept, all else becomes "_"; common names, such as "Apply Eye
    Makeup", are unchanged.
    """
    kept = "".join(mark if mark.isalnum() or mark in _KEPT else "_" for mark in words)
    short = kept.encode()[:_LONGEST].decode(errors="ignore").rstrip(" .")
    return f"_{short.lstrip('.')}" if short.startswith(".") or not short else short
