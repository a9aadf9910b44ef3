"""One training loop, and the objectives, losses, discriminators and alignment that tokenizers are trained with."""
