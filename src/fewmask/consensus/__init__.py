"""Many readers to one mask: structures, votes, STAPLE, and voters that grow by themselves. NumPy and mm."""
