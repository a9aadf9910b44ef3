"""The papers' noun: candidate assignments of tokens to blocks, the proxy reward, and published rules."""
