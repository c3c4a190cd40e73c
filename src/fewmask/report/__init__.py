"""One self-contained page per run: the verdict first, then the numbers, the cases and the doubts."""
