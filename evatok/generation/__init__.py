"""Variable-length generation: grammar, transformer, KV cache, sampling, and the cache of codes it learns from."""
