"""Text formats, counts and files: what a corpus is before it is tensors."""
