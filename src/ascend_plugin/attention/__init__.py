"""Attention: a backend for each family of chips, and what they share."""
