"""pydantic-ai: an agent whose model is a run."""

import os

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

BASE_URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
model = OpenAIChatModel(os.environ.get("MODEL", "play:rsa"), provider=OpenAIProvider(base_url=BASE_URL, api_key="none"))
agent = Agent(model)


@agent.tool_plain
def multiply(a: int, b: int) -> int:
    """The product of two numbers."""
    return a * b


print(agent.run_sync("What is 17 * 23?").output)
