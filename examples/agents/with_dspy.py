"""DSPy: an agent of its own making, which needs no tools of the server."""

import os

import dspy

MODEL = os.environ.get("MODEL", "play:rsa")


def multiply(a: int, b: int) -> int:
    """The product of two numbers."""
    return a * b


dspy.configure(
    lm=dspy.LM(
        f"openai/{MODEL}",
        api_base=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
        api_key="none",
        cache=False,
        # Its answers are forms, which no two candidates fill in alike: one more aggregation makes one of them.
        extra_body={"rsa": {"task": "general", "select": "aggregate"}} if MODEL.endswith(":rsa") else None,
    )
)
agent = dspy.ReAct("question -> answer", tools=[multiply])
print(agent(question="What is 17 * 23?").answer)
