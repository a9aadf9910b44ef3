"""Count the operations of a generator from its shape: two for each multiply-add of a matrix product.

Every position is computed once, as with a KV cache, and attention counts only visible positions. A caption encoder is
not counted; its vectors in the prefix are.
"""

from __future__ import annotations

from evatok.generation.config import GeneratorConfig


def trunk_parameters(config: GeneratorConfig) -> int:
    """Count the weights of the layers' matrices, without embeddings and head: N in compute-optimal sizing, D = 20 N."""
    return config.layers * (4 * config.width**2 + 3 * config.width * config.hidden)


def generator_operations(
    config: GeneratorConfig, symbols: float, *, training: bool = False, guided: bool = False
) -> float:
    """Count the operations of one sequence of `symbols` symbols.

    Args:
        training: include the backward pass, twice the forward pass.
        guided: include a second sequence of the null class.
    """
    width, positions = config.width, config.prefix + symbols - 1
    weights = trunk_parameters(config)
    seen = positions * (positions + 1) / 2
    attention = config.layers * 2 * width * seen  # scores, and the weighted sum of values
    forward = 2 * (weights * positions + attention + width * config.vocabulary * symbols)
    return forward * (3 if training else 1) * (2 if guided else 1)
