import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { expect, test } from "vitest";
import { ERROR_CODES } from "../../../src/index.ts";
import { SAMPLES } from "./samples.ts";

const readDoc = (name: string) => readFileSync(new URL(`../../../../docs/${name}`, import.meta.url), "utf8");

const SCHEMA = JSON.parse(readDoc("events.schema.json"));
const PAGE = readDoc("manager-contract.md");
const TIME = "2026-03-01T09:30:00.000Z";

const ajv = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false, allErrors: true });
const matches = ajv.compile(SCHEMA);
const samples = Object.entries(SAMPLES).map(
  ([name, event]) => [name, { time: TIME, ...event } as Record<string, unknown>] as const,
);
const examples = PAGE.split("\n").filter((line) => line.startsWith('{"event"'));

/** The same schema without room for undeclared fields. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed);
  if (schema === null || typeof schema !== "object") return schema;
  const copy = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]));
  return "required" in schema && "properties" in schema && !("allOf" in schema)
    ? { ...copy, additionalProperties: false }
    : copy;
}

test.each(samples)("the schema describes every field of %s", (_name, event) => {
  const matchesExactly = new Ajv2020({ strict: false }).compile({
    ...(closed(SCHEMA) as object),
    $id: "urn:multifd-helper:closed",
  });
  expect(matches(event), JSON.stringify(matches.errors)).toBe(true);
  expect(matchesExactly(event), JSON.stringify(matchesExactly.errors)).toBe(true);
  expect(matchesExactly({ ...event, undeclared: 1 })).toBe(false);
});

const OPTIONAL: Readonly<Record<string, readonly string[]>> = {
  progress: ["totalBytes", "qemu", "percent", "secondsLeft", "instant"],
  completed: ["disks", "instant"],
  completedVerify: ["resumed"],
};

test.each(samples)("the schema demands every field of %s that is always there", (name, event) => {
  // Without `checked` a verified event is an incomplete one of save or restore, which is refused as well.
  const optional = OPTIONAL[name] ?? [];
  for (const field of Object.keys(event)) {
    const { [field]: _left, ...rest } = event;
    expect(matches(rest), field).toBe(optional.includes(field));
  }
});

test("the schema lets new events and fields pass, but not lines without event or time", () => {
  expect(matches({ event: "tea", time: TIME, cups: 2 })).toBe(true);
  expect(matches({ ...SAMPLES.hello, time: TIME, news: true })).toBe(true);
  expect(matches({ time: TIME })).toBe(false);
  expect(matches({ event: "tea", time: "yesterday" })).toBe(false);
});

test("the schema refuses wrong values", () => {
  const wrong = [
    { ...SAMPLES.channel, channel: "1" },
    { ...SAMPLES.channel, channel: 255 },
    { ...SAMPLES.progress, bytes: -1 },
    { ...SAMPLES.drained, evidence: { verdict: "incomplete", reasons: [] } },
    { ...SAMPLES.failed, code: "no space" },
    { ...SAMPLES.failed, details: { nested: {} } },
  ];
  for (const event of wrong) expect(matches({ ...event, time: TIME }), JSON.stringify(event)).toBe(false);
});

test("the contract page has a valid example of every event", () => {
  const shown = examples.map((line) => {
    const event = JSON.parse(line);
    expect(matches(event), `${line}: ${JSON.stringify(matches.errors)}`).toBe(true);
    if (event.event !== "completed") return event.event;
    if ("checked" in event) return "completedVerify";
    return "differing" in event ? "completedDiff" : "completed";
  });
  expect(new Set(shown)).toEqual(new Set(Object.keys(SAMPLES)));
});

test("the examples of failures use a code that exists", () => {
  const codes = examples.map((line) => JSON.parse(line)).flatMap((event) => event.code ?? []);
  expect(codes.length).toBeGreaterThan(0);
  for (const code of codes) expect(Object.keys(ERROR_CODES)).toContain(code);
});

test("the contract page's table of codes is ERROR_CODES", () => {
  const rows = [...PAGE.matchAll(/^\| `([A-Z_]+)` +\| (\d+) +\| (.+?) +\|$/gm)];
  const table = rows.map(([, code, exitStatus, meaning]) => [
    code,
    { exitStatus: Number(exitStatus), meaning },
  ]);
  expect(table).toEqual(Object.entries(ERROR_CODES));
});

test("the QMP commands of the contract page are JSON", () => {
  const commands = PAGE.split("\n").filter((line) => line.trimStart().startsWith('{"execute"'));
  expect(commands.length).toBeGreaterThanOrEqual(8);
  for (const command of commands) expect(JSON.parse(command)).toHaveProperty("execute");
});
