"""Tensors: scans, short convolutions, window attention."""
