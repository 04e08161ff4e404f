// The unmodified npm `ollama` client against a started daemon: node_client.mjs http://host:port
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [host, modules] = process.argv.slice(2);
const require = createRequire(pathToFileURL(modules + "/"));
const { Ollama } = require("ollama");
const client = new Ollama({ host });
const messages = [{ role: "user", content: "Who are you?" }];
const options = { temperature: 0, seed: 1 };
const model = "lantern-guide";

assert.equal((await client.version()).version.split(".").length, 3);
assert.deepEqual((await client.list()).models.map((m) => m.name), ["lantern-guide:latest"]);
const shown = await client.show({ model });
assert.equal(shown.details.family, "qwen3");
assert.ok(shown.capabilities.includes("completion"));

const whole = await client.chat({ model, messages, options });
assert.match(whole.message.content, /lantern-guide/);
for (const metric of ["total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"]) {
  assert.ok(whole[metric] > 0, metric);
}
let text = "";
for await (const part of await client.chat({ model, messages, options, stream: true })) text += part.message.content;
assert.equal(text, whole.message.content);

const generated = await client.generate({ model, prompt: "Who are you?", options });
text = "";
for await (const part of await client.generate({ model, prompt: "Who are you?", options, stream: true })) text += part.response;
assert.equal(text, generated.response);

assert.equal((await client.ps()).models[0].name, "lantern-guide:latest");
assert.equal((await client.generate({ model, prompt: "", keep_alive: 0 })).done_reason, "unload");
assert.equal((await client.ps()).models.length, 0);
assert.equal((await client.generate({ model, prompt: "" })).done_reason, "load");

await client.copy({ source: model, destination: "second" });
await client.delete({ model: "second" });
await assert.rejects(client.show({ model: "second" }), /not found/);

// Aborting a stream ends it for the caller and frees its place. Tokens drawn nearly at random hardly ever are the one that ends.
const endless = await client.generate({ model, prompt: "Hello", raw: true, stream: true, options: { num_predict: 2000, temperature: 9, top_k: 0, top_p: 1 } });
await assert.rejects(async () => {
  for await (const part of endless) if (part.response !== undefined) endless.abort();
}, { name: "AbortError" });
assert.equal((await client.chat({ model, messages, options })).message.content, whole.message.content);
console.log("npm client passed");
