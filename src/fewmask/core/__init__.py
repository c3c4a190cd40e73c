"""The floor of the house: volumes, run folders, chance and errors. NumPy only."""
