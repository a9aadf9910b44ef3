"""Variable-length generation: grammar, transformer, KV cache, continuous batching, and the cache of training codes."""
