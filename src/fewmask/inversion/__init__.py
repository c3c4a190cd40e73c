"""From an image to the latents of a generator: projection, and how far it may be trusted."""
