// LangChain for Node, in its ordinary way: text, streams, structured output and a tool that is forced.
import assert from "node:assert";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const model = process.env.OPENAI_MODEL;
const chat = new ChatOpenAI({ model, maxTokens: 5, maxRetries: 0, temperature: 0 });
assert.ok((await chat.invoke("Hello.")).content);
let text = "";
for await (const piece of await chat.stream("Hello.")) {
  text += piece.content;
}
assert.ok(text);
const long = new ChatOpenAI({ model, maxTokens: 200, maxRetries: 0, temperature: 0 });
const fruit = z.object({ sweet: z.boolean() });
for (const method of ["jsonSchema", "functionCalling"]) {
  assert.equal(typeof (await long.withStructuredOutput(fruit, { name: "fruit", method }).invoke("A pear.")).sweet, "boolean");
}
const responses = new ChatOpenAI({ model, maxTokens: 5, maxRetries: 0, useResponsesApi: true });
assert.ok((await responses.invoke("Hello.")).content);
console.log("ok");
