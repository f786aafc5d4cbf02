"""Models that need no download hub: the embedded default and seeded tiny ones for tests."""
