"""Every measurement at paper size in bfloat16 on a CUDA GPU; see `python -m benchmarks.speed` for options.

python -m benchmarks.gpu
"""

from __future__ import annotations

import sys

from benchmarks import speed


def main(argv: list[str] | None = None) -> int:
    return speed.main(["--device", "cuda", "--size", "paper", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
