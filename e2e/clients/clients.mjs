// The libraries for Node, in their ordinary way: address, token and model come from the environment.
import assert from "node:assert";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const model = process.env.OPENAI_MODEL;
const messages = [{ role: "user", content: "Hello." }];

const openai = new OpenAI({ maxRetries: 0 });
assert.equal((await openai.models.retrieve(model)).id, model);
const chat = await openai.chat.completions.create({ model, messages, max_tokens: 5 });
assert.equal(chat.choices[0].message.role, "assistant");
const runner = openai.chat.completions.stream({ model, messages, max_completion_tokens: 5 });
assert.ok(await runner.finalContent());
const response = await openai.responses.create({ model, input: "Hello.", max_output_tokens: 5 });
assert.ok(response.output_text);
const schema = { type: "object", properties: { sweet: { type: "boolean" } }, required: ["sweet"], additionalProperties: false };
const text = { format: { type: "json_schema", name: "fruit", schema } };
const stream = openai.responses.stream({ model, input: "A pear.", max_output_tokens: 200, temperature: 0, text });
let last = -1;
for await (const event of stream) {
  assert.equal(event.sequence_number, ++last);
}
assert.ok((await stream.finalResponse()).output[0].content[0].text);

const anthropic = new Anthropic({ maxRetries: 0 });
const answer = await anthropic.messages.create({ model, max_tokens: 5, messages });
assert.ok(answer.content[0].text);
const final = await anthropic.messages.stream({ model, max_tokens: 5, messages }).finalMessage();
assert.equal(final.content[0].type, "text");
await assert.rejects(anthropic.messages.create({ model: "claude", max_tokens: 5, messages }), /served model/);
console.log("ok");
