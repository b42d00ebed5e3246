import { once } from "node:events";
import type { CompletedEvent, DrainedEvent, RunEvent } from "../control/events.ts";
import { type Failure, MultifdError } from "../errors.ts";
import {
  type DiffCompletedEvent,
  EventWriter,
  type StartedEvent,
  type VerifyCompletedEvent,
} from "./events.ts";
import { formatBytes } from "./format.ts";
import { ProgressBar } from "./progress-bar.ts";

/** How a run succeeds. */
type FinalEvent = CompletedEvent | VerifyCompletedEvent | DiffCompletedEvent | StartedEvent;

/** How a command speaks: to a program (`--json`) or to a person. */
export interface Output {
  /** A run begins. */
  start(): void;
  event(event: Exclude<RunEvent, CompletedEvent>): void;
  completed(event: FinalEvent, sentence: string): void;
  failed(failure: Failure): void;
  /** A person reads what was done so far, and what is being done now where a terminal can show that. */
  tell(done: string, doing: string): void;
  /** The whole answer of a command that is not a run: an object for programs, a page for people. */
  answer(value: object, page: string): Promise<void>;
  /** Something else is about to be written to stderr. */
  yieldTerminal(): void;
}

/** Commands that answer with one object instead of events. */
const ANSWERING: readonly string[] = [
  "inspect",
  "capabilities",
  "demo",
  "bench",
  "recover",
  "managed-list",
  "managed-remove",
];
/** With --all these do, too. */
const ANSWERING_FOR_ALL: readonly string[] = ["managed-save", "start"];

/**
 * Decided from the raw arguments, before they are parsed: a command line that cannot be parsed has to be
 * refused in the right form, too.
 */
export function openOutput(argv: readonly string[]): Output {
  const end = argv.indexOf("--");
  const options = end < 0 ? argv : argv.slice(0, end);
  // Readers may go away; that must end neither the run nor the help in a pager with a stack trace.
  process.stdout.on("error", () => undefined);
  process.stderr.on("error", () => undefined);
  const [command = ""] = argv;
  const answering =
    ANSWERING.includes(command) || (ANSWERING_FOR_ALL.includes(command) && options.includes("--all"));
  // "--json=1" makes no sense, and asks for JSON all the same.
  return options.some((option) => option === "--json" || option.startsWith("--json="))
    ? new JsonOutput(new EventWriter(process.stdout), answering)
    : new PersonOutput();
}

class JsonOutput implements Output {
  readonly #events: EventWriter;
  readonly #answering: boolean;
  #greeted: boolean;

  constructor(events: EventWriter, answering: boolean) {
    this.#events = events;
    this.#answering = answering;
    this.#greeted = answering;
  }

  start(): void {
    if (this.#greeted) return;
    this.#greeted = true;
    this.#events.hello();
  }

  event(event: Exclude<RunEvent, CompletedEvent>): void {
    if (!this.#answering) this.#events.write(event);
  }

  completed(event: FinalEvent): void {
    this.#events.write(event);
  }

  failed(failure: Failure): void {
    this.start();
    const { code, message, details } = failure;
    this.#events.write({ event: "failed", code, message, details });
    writeFailure(failure);
  }

  tell(): void {}

  answer(value: object): Promise<void> {
    return writeAnswer(`${JSON.stringify(value)}\n`);
  }

  yieldTerminal(): void {}
}

class PersonOutput implements Output {
  readonly #bar: ProgressBar | undefined = process.stderr.isTTY ? new ProgressBar(process.stderr) : undefined;

  start(): void {}

  event(event: Exclude<RunEvent, CompletedEvent>): void {
    if (event.event === "listening") this.#bar?.note(`waiting for QEMU on ${event.address}`);
    if (event.event === "progress") this.#bar?.show(event);
    if (event.event === "drained") this.#askForDecision(event);
  }

  completed(_event: FinalEvent, sentence: string): void {
    this.tell(sentence, "");
  }

  tell(done: string, doing: string): void {
    this.#bar?.clear();
    if (done !== "")
      process.stdout.write(`${done}
`);
    if (doing !== "") this.#bar?.note(doing);
  }

  failed(failure: Failure): void {
    this.#bar?.clear();
    writeFailure(failure);
  }

  answer(_value: object, page: string): Promise<void> {
    this.#bar?.clear();
    return writeAnswer(page);
  }

  yieldTerminal(): void {
    this.#bar?.clear();
  }

  #askForDecision({ bytes, evidence }: DrainedEvent): void {
    this.#bar?.clear();
    const found = evidence.verdict === "complete" ? "complete" : "not provably complete";
    process.stderr.write(
      `Drained ${formatBytes(bytes)}, ${found}: answer commit to keep the image, abort to discard it.\n`,
    );
  }
}

function writeFailure({ code, message }: Failure): void {
  // Names from a damaged image or a hostile peer must neither break the line nor steer the terminal.
  const line = message.replace(/\p{Cc}+/gu, " ");
  process.stderr.write(`multifd-helper: ${line} [${code}]\n`);
}

/** The answer is all that its command is for, so that losing it is a failure, unless the reader has seen enough. */
async function writeAnswer(text: string): Promise<void> {
  const failed = once(process.stdout, "error").then(([error]) => error as NodeJS.ErrnoException);
  const written = new Promise<undefined>((resolve) => {
    process.stdout.write(text, (error) => {
      if (!error) resolve(undefined);
    });
  });
  const error = await Promise.race([written, failed]);
  if (error === undefined || error.code === "EPIPE") return;
  throw new MultifdError("IO", `the answer could not be written to stdout: ${error.message}`, {
    errno: error.code,
  });
}
