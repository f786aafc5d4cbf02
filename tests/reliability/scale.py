"""How much of the battery a run does: a selection within `make test`, everything in `make test-reliability`."""

from __future__ import annotations

import os

EVERYTHING = os.environ.get("RELIABILITY") == "everything"
STREAMS = int(os.environ.get("RELIABILITY_STREAMS", "1000" if EVERYTHING else "120"))
SOAK_STEPS = int(os.environ.get("RELIABILITY_SOAK_STEPS", "20000" if EVERYTHING else "1500"))
EXAMPLES = int(os.environ.get("RELIABILITY_EXAMPLES", "15" if EVERYTHING else "2"))  # of each route
