"""The laboratory: tiny models with published structures, run by vLLM on chips and judged by transformers in float32."""
