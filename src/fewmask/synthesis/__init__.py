"""From generators to labels: features, pixel heads, and generated images with labels."""
