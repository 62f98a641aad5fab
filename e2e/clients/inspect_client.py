"""Inspect, in its ordinary way: provider `openai` with chat completions, and a tool that is forced. For Responses it counts tokens
with a table that it fetches from the internet."""

import asyncio
import os

from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.tool import ToolFunction, tool

name = os.environ["OPENAI_MODEL"]


@tool
def add():
    async def execute(a: int, b: int):
        """Adds two numbers.

        Args:
            a: The first number.
            b: The second number.
        """
        return a + b

    return execute


async def main():
    async with get_model(f"openai/{name}", responses_api=False, config=GenerateConfig(max_tokens=5, max_retries=0), memoize=False) as model:
        answer = await model.generate("Hello.")
        assert answer.completion, answer
        again = await model.generate([ChatMessageUser(content="Hello."), answer.message, ChatMessageUser(content="Go on.")])
        assert again.stop_reason == "max_tokens", again
        exact = GenerateConfig(max_tokens=64, temperature=0, seed=1, parallel_tool_calls=False)
        added = await model.generate("What is 1 + 2?", tools=[add()], tool_choice=ToolFunction(name="add"), config=exact)
        # The base model may write before its call until it has no tokens left.
        assert added.message.tool_calls or added.stop_reason == "max_tokens", added


asyncio.run(main())
print("ok")
