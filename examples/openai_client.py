"""A chat, streamed, through OpenAI's own client: `python examples/openai_client.py [URL]`.

Start a server first: `ascend serve smollm2` (or `vllm serve MODEL`). A server with a key wants it in OPENAI_API_KEY.
"""

import os
import sys

from openai import OpenAI

URL = "http://localhost:8000/v1"


def main() -> None:
    client = OpenAI(base_url=sys.argv[1] if len(sys.argv) > 1 else URL, api_key=os.environ.get("OPENAI_API_KEY", "-"))
    model = client.models.list().data[0].id
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=32,
        stream=True,
    )
    print(f"{model}: ", end="")
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
