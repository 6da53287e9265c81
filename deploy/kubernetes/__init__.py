"""Manifests for Kubernetes, and what writes the one that is made of files elsewhere."""
