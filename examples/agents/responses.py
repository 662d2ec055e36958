"""OpenAI's client, Responses: the server keeps the conversation, and a call's result is all that goes back."""

import json
import os

from openai import OpenAI

MODEL = os.environ.get("MODEL", "play:rsa")
MULTIPLY = {
    "type": "function",
    "name": "multiply",
    "description": "The product of two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
    "strict": False,
}


def multiply(a: int, b: int) -> int:
    return a * b


client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
response = client.responses.create(model=MODEL, input="What is 17 * 23?", tools=[MULTIPLY])
while calls := [item for item in response.output if item.type == "function_call"]:
    results = [
        {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": str(multiply(**json.loads(call.arguments))),
        }
        for call in calls
    ]
    response = client.responses.create(model=MODEL, input=results, previous_response_id=response.id, tools=[MULTIPLY])
print(response.output_text)
