"""Results that other tools wrote, as rows: vLLM's own, guidellm's, evalscope's and AISBench's.

None of them says which chip ran, or how many, and all count tokens as the client meant them; rows made of them say so.
Where a tool's name means something else than vLLM's (guidellm's TPOT counts the first token), the figure is taken that
means the same.
"""

from ascend_cli.bench.foreign.reader import rows_of

__all__ = ["rows_of"]
