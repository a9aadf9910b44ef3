"""VTok (arXiv 2602.04202): a key frame as spatial tokens and each later frame as one residual token.

>>> from evatok.vtok import length
>>> length("vtok", key=16, fps=6, seconds=5)
46
>>> length("frames", frames=8)
128
"""

from evatok.vtok.strategies import KINDS, RESIDUALS, Strategy, StrategyError, length

__all__ = ["KINDS", "RESIDUALS", "Strategy", "StrategyError", "length"]
