"""The arithmetic on figures that were worked out by hand."""
