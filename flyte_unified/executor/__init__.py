"""Carries actions from QUEUED to their end: one controller, pure decisions, I/O around them."""
