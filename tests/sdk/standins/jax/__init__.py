"""Stands in for JAX: it has no launcher of its own."""
