"""Models by name: built-in cards, folders and caches, downloads, the embedded default, the parsers they need."""
