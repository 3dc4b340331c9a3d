"""Realization theory: systems, certificates, canonical forms, identification."""
