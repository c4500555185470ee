"""The services that a running task calls: it starts actions, watches them, aborts them."""
