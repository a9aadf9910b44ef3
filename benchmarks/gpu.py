"""Every measurement at the paper's size in bfloat16 on a CUDA GPU; options as of `python -m benchmarks.speed`.

python -m benchmarks.gpu
"""

from __future__ import annotations

import sys

from benchmarks import speed


def main(argv: list[str] | None = None) -> int:
    return speed.main(["--device", "cuda", "--size", "paper", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
