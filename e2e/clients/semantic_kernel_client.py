"""Semantic Kernel, in its ordinary way: chat, streams, and a function that it calls by itself."""

import asyncio
import os

from openai import AsyncOpenAI
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings, OpenAITextCompletion, OpenAITextPromptExecutionSettings
from semantic_kernel.contents import ChatHistory

name = os.environ["OPENAI_MODEL"]


async def main():
    client = AsyncOpenAI(max_retries=0)
    chat = OpenAIChatCompletion(ai_model_id=name, async_client=client)
    history = ChatHistory(system_message="Be brief.")
    history.add_user_message("Hello.")
    settings = OpenAIChatPromptExecutionSettings(max_tokens=5, temperature=0)
    answer = await chat.get_chat_message_content(history, settings)
    assert str(answer), answer
    history.add_message(answer)
    history.add_user_message("Go on.")
    assert [piece async for piece in chat.get_streaming_chat_message_content(history, settings)]
    text = OpenAITextCompletion(ai_model_id=name, async_client=client)
    assert await text.get_text_content("Once upon a time", OpenAITextPromptExecutionSettings(max_tokens=5))


asyncio.run(main())
print("ok")
