"""Networks as torch modules: no loss, no optimiser, no file."""
