// Vercel's AI SDK with its three providers that fit, in their ordinary way: text, streams, objects and a forced tool.
import assert from "node:assert";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { z } from "zod";

const name = process.env.OPENAI_MODEL;
const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY });
const compatible = createOpenAICompatible({
  name: "companion", baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY, supportsStructuredOutputs: true,
});
const anthropic = createAnthropic({ baseURL: process.env.ANTHROPIC_BASE_URL + "/v1", apiKey: process.env.ANTHROPIC_AUTH_TOKEN });
// The runtime lets a forced call begin after other text; the small model begins at once for this function.
const numbers = { type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } }, required: ["a", "b"] };
const add = tool({ description: "Adds two numbers.", inputSchema: jsonSchema(numbers) });

for (const [provider, model] of Object.entries({
  responses: openai(name), chat: openai.chat(name), completion: openai.completion(name), compatible: compatible(name), anthropic: anthropic(name),
})) {
  const common = { model, maxRetries: 0, temperature: 0 };
  try {
    const { text, usage } = await generateText({ ...common, prompt: "Hello.", maxOutputTokens: 5 });
    assert.ok(text && usage.outputTokens > 0);
    let streamed = "";
    for await (const piece of streamText({ ...common, prompt: "Hello.", maxOutputTokens: 5, onError: ({ error }) => { throw error; } }).textStream) {
      streamed += piece;
    }
    assert.ok(streamed);
    if (provider === "completion") {
      continue;
    }
    if (provider !== "anthropic") { // which has no schemas of answers, only functions
      const { object } = await generateObject({ ...common, prompt: "A pear.", schema: z.object({ sweet: z.boolean() }), maxOutputTokens: 200 });
      assert.equal(typeof object.sweet, "boolean");
    }
    const { toolCalls } = await generateText({
      ...common, prompt: "What is 1 + 2?", tools: { add }, toolChoice: { type: "tool", toolName: "add" }, maxOutputTokens: 200,
    });
    assert.equal(toolCalls[0].toolName, "add");
  } catch (error) {
    throw new Error(`${provider}: ${error.message} ${error.responseBody ?? ""} ${JSON.stringify(error.requestBodyValues ?? "")}`, { cause: error });
  }
}
console.log("ok");
