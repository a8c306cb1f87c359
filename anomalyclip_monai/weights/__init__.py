"""Weights that others publish: where they lie, how they are fetched, checked and converted."""
