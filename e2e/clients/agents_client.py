"""OpenAI's agents library, in its ordinary way: Responses by default, chat completions, a tool that is forced."""

import asyncio
import os

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool
from openai import AsyncOpenAI

name = os.environ["OPENAI_MODEL"]
called = []


@function_tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    called.append((a, b))
    return a + b


async def main():
    quiet = RunConfig(tracing_disabled=True)
    for model in (name, OpenAIChatCompletionsModel(model=name, openai_client=AsyncOpenAI())):
        agent = Agent(name="a", instructions="Be brief.", model=model, model_settings=ModelSettings(max_tokens=5))
        answer = await Runner.run(agent, "Hello.", run_config=quiet)
        assert answer.final_output, answer
        assert (await Runner.run(agent, answer.to_input_list() + [{"role": "user", "content": "Go on."}], run_config=quiet)).final_output
        # The library wants an answer that is complete; this one ends at once.
        ends = Agent(name="c", model=model, model_settings=ModelSettings(max_tokens=200, extra_body={"stop": ["e", "a", "i", "o", " ", ".", "\n"]}))
        stream = Runner.run_streamed(ends, "Hello.", run_config=quiet)
        assert [event async for event in stream.stream_events()]
        called.clear()
        caller = Agent(name="b", model=model, tools=[add], tool_use_behavior="stop_on_first_tool",
                       model_settings=ModelSettings(max_tokens=200, temperature=0, tool_choice="add"))
        await Runner.run(caller, "What is 1 + 2?", run_config=quiet)
        assert called, "the tool was not called"


asyncio.run(main())
print("ok")
