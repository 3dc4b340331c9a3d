"""Measuring the memory of trained models and intervening on it."""
