"""Clips and lengths to codes and back: one family of tokenizers per module or folder, and the parts they share."""
