// The AI SDK by its defaults: its OpenAI provider asks /v1/responses, its Anthropic provider /v1/messages.
// Reads a job from standard input and prints what it got as JSON.
import { readFileSync } from "node:fs";
import { generateText, streamText, tool } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createAnthropic } from "@ai-sdk/anthropic";
import { z } from "zod";

const job = JSON.parse(readFileSync(0, "utf8"));
const providers = {
  openai: createOpenAI({ baseURL: `${job.url}/v1`, apiKey: job.key }),
  anthropic: createAnthropic({ baseURL: `${job.url}/v1`, apiKey: job.key }),
};
const found = {};
for (const [name, provider] of Object.entries(providers)) {
  const asked = { model: provider(job.model), prompt: job.prompt, temperature: 0, maxOutputTokens: 60 };
  const whole = await generateText(asked);
  const streamed = streamText(asked);
  let text = "";
  for await (const part of streamed.textStream) text += part;
  found[name] = {
    whole: whole.text,
    streamed: text,
    finish: [whole.finishReason, await streamed.finishReason],
    tokens: [whole.usage.inputTokens, whole.usage.outputTokens],
  };
  try {
    await generateText({ ...asked, model: provider("no-such-model"), maxRetries: 0 });
  } catch (error) {
    found[name].error = [error.name, error.statusCode, error.message];
  }
}
const openai = providers.openai(job.model);
const called = await generateText({
  model: openai,
  prompt: job.question,
  temperature: 0,
  tools: {
    get_weather: tool({
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => "sunny",
    }),
  },
});
found.calls = called.toolCalls.map((call) => [call.toolName, call.input]);
console.log(JSON.stringify(found));
