"""Measure your tokenizer: anything with `encode` and `decode`, or a function of clips (B, 3, T, H, W) in [0, 1].

python examples/your_tokenizer.py [CLIPS]
"""

import sys

from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate

import evatok


class Pooled:
    """Stands for your tokenizer: a quarter of the width and height."""

    def encode(self, clips: Tensor) -> Tensor:
        return avg_pool3d(clips, (1, 4, 4))

    def decode(self, codes: Tensor) -> Tensor:
        return interpolate(codes, scale_factor=(1, 4, 4))


def main(count: int = 32) -> None:
    protocol = evatok.protocols.get("embedded-reconstruction")
    clips = evatok.protocols.clips_of(protocol, limit=count)  # no limit: a number that may stand in a table
    measured = evatok.evaluate(Pooled(), clips, protocol, metrics=("psnr", "ssim", "mse"), limit=count)
    for name, metric in measured.metrics.items():
        print(f"{name:20} {metric.value:8.4f} {metric.unit}")


if __name__ == "__main__":  # clips are rendered by worker processes, which import this file
    main(*map(int, sys.argv[1:]))
