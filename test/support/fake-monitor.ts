import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";

/** A command as it comes, in band or out of band. */
export interface SentCommand {
  readonly execute?: string;
  readonly "exec-oob"?: string;
  readonly arguments?: unknown;
  readonly id: number;
}

/** A scripted monitor: greets, and answers each command with what `answers` says; undefined is silence. */
export class FakeMonitor {
  readonly received: SentCommand[] = [];
  client: Socket | undefined;
  /** What it sends to whoever connects; null is silence. */
  greeting: object | string | null = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } } } };
  answers: (command: SentCommand) => object | string | undefined = ({ id }) => ({ return: {}, id });
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((socket) => {
      this.client = socket;
      socket.on("error", () => {});
      if (this.greeting !== null) this.send(this.greeting);
      let unfinished = "";
      socket.setEncoding("utf8").on("data", (text: string) => {
        const lines = (unfinished + text).split("\n");
        unfinished = lines.pop() ?? "";
        for (const line of lines) this.#receive(line);
      });
    });
  }

  static async listen(path: string): Promise<FakeMonitor> {
    const monitor = new FakeMonitor();
    monitor.#server.listen(path);
    await once(monitor.#server, "listening");
    return monitor;
  }

  send(message: object | string): void {
    this.client?.write(typeof message === "string" ? message : `${JSON.stringify(message)}\r\n`);
  }

  /** Names of the commands that came, "!" before those out of band; without qmp_capabilities. */
  get commands(): string[] {
    return this.received.slice(1).map((command) => command.execute ?? `!${command["exec-oob"]}`);
  }

  close(): void {
    this.client?.destroy();
    this.#server.close();
  }

  #receive(line: string): void {
    const command: SentCommand = JSON.parse(line);
    this.received.push(command);
    const isFirst = command.execute === "qmp_capabilities";
    const answer = isFirst ? { return: {}, id: command.id } : this.answers(command);
    if (answer !== undefined) this.send(answer);
  }
}
