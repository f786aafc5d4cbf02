"""The emulator's own tests compare with the documents and the CPU, so they run without the rules of silicon.

tests/silicon chooses its rules itself.
"""

import os

os.environ.setdefault("ASCEND_EMULATOR_RULES", "none")
