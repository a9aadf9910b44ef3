"""Score candidate assignments with the proxy: exact prefix tree, beam search, and stage 2's tables."""
