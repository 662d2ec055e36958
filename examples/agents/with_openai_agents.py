"""The openai-agents SDK: an agent whose model is a run."""

import os

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(True)  # traces would go to OpenAI


@function_tool
def multiply(a: int, b: int) -> int:
    """The product of two numbers."""
    return a * b


client = AsyncOpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
model = OpenAIChatCompletionsModel(os.environ.get("MODEL", "play:rsa"), client)
agent = Agent("Calculator", instructions="Multiply with the tool.", model=model, tools=[multiply])
print(Runner.run_sync(agent, "What is 17 * 23?").final_output)
