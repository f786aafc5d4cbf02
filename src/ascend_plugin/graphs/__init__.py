"""Decode graphs: how many a chip holds, and the wrapper that captures and replays them."""
