"""LangChain: a chat model with a tool, and a loop that calls it."""

import os

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def multiply(a: int, b: int) -> int:
    """The product of two numbers."""
    return a * b


model = ChatOpenAI(
    model=os.environ.get("MODEL", "play:rsa"),
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key="none",
).bind_tools([multiply])
messages = [HumanMessage("What is 17 * 23?")]
while (answer := model.invoke(messages)).tool_calls:
    messages += [answer, *(multiply.invoke(call) for call in answer.tool_calls)]
print(answer.content)
