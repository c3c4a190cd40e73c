"""Masks to numbers: overlap, surface distances, lesions, agreement of readers, statistics over patients."""
