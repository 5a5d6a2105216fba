// OpenAI's SDK for JavaScript by its defaults. Reads a job from standard input and prints what it got
// as JSON.
import { readFileSync } from "node:fs";
import OpenAI, { toFile } from "openai";

const job = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL: `${job.url}/v1`, apiKey: job.key });
const { model, prompt } = job;
const found = {};
if (job.recording) {
  const file = await toFile(Buffer.from(job.recording, "base64"), "a.wav");
  found.heard = await client.audio.transcriptions.create({ model, file, temperature: 0 });
  found.line = await client.audio.transcriptions.create({ model, file, temperature: 0, response_format: "text" });
  found.events = [];
  const stream = await client.audio.transcriptions.create({ model, file, temperature: 0, stream: true });
  for await (const event of stream) found.events.push([event.type, event.delta ?? event.text]);
} else {
  const chat = { model, messages: [{ role: "user", content: prompt }], temperature: 0 };
  found.whole = (await client.chat.completions.create(chat)).choices[0].message.content;
  found.streamed = "";
  for await (const event of await client.chat.completions.create({ ...chat, stream: true }))
    found.streamed += event.choices[0]?.delta.content ?? "";
  const asked = { model, input: prompt, temperature: 0 };
  found.response = (await client.responses.create(asked)).output_text;
  found.events = "";
  for await (const event of client.responses.stream(asked))
    if (event.type === "response.output_text.delta") found.events += event.delta;
  const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const run = client.chat.completions.runTools({
    ...chat,
    messages: [{ role: "user", content: job.question }],
    tools: [
      {
        type: "function",
        function: {
          name: "get_weather",
          parameters: city,
          parse: JSON.parse,
          function: async ({ city }) => (city === "Paris" ? "sunny" : "unknown"),
        },
      },
    ],
  });
  found.told = await run.finalContent();
  found.models = [];
  for await (const each of client.models.list()) found.models.push(each.id);
  try {
    await client.chat.completions.create({ ...chat, model: "no-such-model" });
  } catch (error) {
    found.error = [error.constructor.name, error.status, error.code];
  }
}
console.log(JSON.stringify(found));
