"""Stands in for PyTorch, of which ``torchrun`` alone is asked."""
