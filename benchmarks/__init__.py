"""Benchmarks: each module is one command that prints a table with both sides of a comparison and writes JSON."""
