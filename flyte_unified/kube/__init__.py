"""Kubernetes, spoken in JSON: a client, an informer, a leader's lease. The only room that imports ``kubernetes``."""
