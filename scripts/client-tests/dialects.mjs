// Unmodified npm clients of other dialects against a started daemon: dialects.mjs http://host:port MODULES
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [host, modules] = process.argv.slice(2);
const require = createRequire(pathToFileURL(modules + "/"));
const load = async (name) => import(pathToFileURL(require.resolve(name)));
const version = (name) => require(`${modules}/node_modules/${name}/package.json`).version;
const model = "lantern-guide", vectors = "minilm", question = "Who are you?";
const messages = [{ role: "user", content: question }];
const clock = { name: "get_current_time", description: "Get the current time", parameters: { type: "object", properties: { timezone: { type: "string" } } } };

async function openai() {
  const { OpenAI, NotFoundError } = await load("openai");
  const client = new OpenAI({ baseURL: host + "/v1", apiKey: "any" });
  const whole = await client.chat.completions.create({ model, messages, temperature: 0 });
  const text = whole.choices[0].message.content;
  assert.match(text, /lantern-guide/);
  let streamed = "";
  for await (const part of await client.chat.completions.create({ model, messages, temperature: 0, stream: true })) streamed += part.choices[0]?.delta.content ?? "";
  assert.equal(streamed, text);
  const called = await client.chat.completions.create({ model, messages: [{ role: "user", content: "What time is it?" }], temperature: 0, tools: [{ type: "function", function: clock }] });
  assert.equal(called.choices[0].message.tool_calls[0].function.name, "get_current_time");
  assert.equal((await client.embeddings.create({ model: vectors, input: "x" })).data[0].embedding.length, 384);
  assert.equal((await client.responses.create({ model, input: question, temperature: 0 })).output_text, text);
  await assert.rejects(client.chat.completions.create({ model: "nope", messages }), NotFoundError);
  return version("openai");
}

async function anthropic() {
  const { default: Anthropic } = await load("@anthropic-ai/sdk");
  const client = new Anthropic({ baseURL: host, apiKey: "any" });
  const whole = await client.messages.create({ model, max_tokens: 100, messages });
  assert.equal(whole.stop_reason, "end_turn");
  const final = await client.messages.stream({ model, max_tokens: 100, messages, temperature: 0 }).finalMessage();
  assert.match(final.content[0].text, /lantern-guide/);
  return version("@anthropic-ai/sdk");
}

async function aiSdk() {
  const { createOllama } = await load("ollama-ai-provider-v2");
  const { generateText, streamText, embed } = await load("ai");
  const ollama = createOllama({ baseURL: host + "/api" });
  const { text } = await generateText({ model: ollama(model), prompt: question, temperature: 0 });
  assert.match(text, /lantern-guide/);
  let streamed = "";
  for await (const part of streamText({ model: ollama(model), prompt: question, temperature: 0 }).textStream) streamed += part;
  // The provider leaves a temperature of 0 out, so the two need not be the same.
  assert.match(streamed, /[Ll]antern/);
  const { embedding } = await embed({ model: ollama.embeddingModel(vectors), value: "x" });
  assert.equal(embedding.length, 384);
  return `${version("ollama-ai-provider-v2")} with ai ${version("ai")}`;
}

for (const [name, client] of Object.entries({ openai, "@anthropic-ai/sdk": anthropic, "ollama-ai-provider-v2": aiSdk })) {
  console.log(`npm ${name} ${await client()} passed`);
}
