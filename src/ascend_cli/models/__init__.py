"""`ascend models`: which models have been run on which chip, read from the results that ship with this package."""
