"""OpenAI's client, chat completions: a tool is called, and its result given back."""

import json
import os

from openai import OpenAI

MODEL = os.environ.get("MODEL", "play:rsa")
MULTIPLY = {
    "type": "function",
    "function": {
        "name": "multiply",
        "description": "The product of two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def multiply(a: int, b: int) -> int:
    return a * b


client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
messages = [{"role": "user", "content": "What is 17 * 23?"}]
while True:
    message = client.chat.completions.create(model=MODEL, messages=messages, tools=[MULTIPLY]).choices[0].message
    if not message.tool_calls:
        break
    messages.append(message)
    for call in message.tool_calls:
        result = multiply(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})
print(message.content)
