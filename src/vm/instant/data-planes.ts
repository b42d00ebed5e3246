import { rmSync } from "node:fs";
import { join } from "node:path";
import type { CompletedEvent, ProgressEvent, RunEvent } from "../../control/events.ts";
import type { MappedRamReport } from "../../control/reports.ts";
import { SILENT } from "../../control/silent-log.ts";
import { teller } from "../../control/telling.ts";
import { privateDirectory } from "../../io/private-directory.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { completedMapped } from "../restore/load-mapped.ts";
import { giveTo } from "../restore/socket-directory.ts";
import { DataPlane, type DataPlaneEnd } from "./data-plane.ts";
import { dataPlaneArguments } from "./data-plane-arguments.ts";
import type { ServingOptions } from "./options.ts";
import { ServedImage } from "./served-image.ts";

/** The processes that serve one image to one VM, one after the other, and what all of them share. */
export class DataPlanes {
  readonly report: MappedRamReport;
  readonly image: ServedImage;
  /** Called with `running` of the first one, and when a later one goes on. */
  onRunning: () => void = () => undefined;
  /** How many in a row have not sent a page. */
  fruitless = 0;
  readonly #options: ServingOptions;
  readonly #tell: (event: RunEvent) => void;
  /** Where QEMU makes its sockets. */
  readonly #directory: string;
  /** The first one, until QEMU is there. */
  #prepared: DataPlane | null = null;
  #present: DataPlane | null = null;
  #progress: ProgressEvent | null = null;
  #runningMs: number | null = null;

  /** Opens the image; close() is the caller's. Throws IO. */
  constructor(report: MappedRamReport, options: ServingOptions) {
    this.report = report;
    this.#options = options;
    this.#tell = teller(options);
    this.image = new ServedImage(options.image);
    this.#directory = privateDirectory("restore");
  }

  /** Where QEMU is to listen for the one of this number. */
  socket(number: number): string {
    return join(this.#directory, `s${number}`);
  }

  /** Lets this QEMU make its sockets. */
  admit({ pid }: Monitor): void {
    giveTo(pid, this.#directory);
  }

  /** Starts the first one, which waits until QEMU listens: starting it takes longer than all that QEMU is asked. */
  prepare(): void {
    this.#prepared = this.#start(0, false, []);
  }

  /**
   * Has the one of this number serve, and resolves when it has ended.
   * @param args what only QEMU tells, for its command line
   */
  async run(number: number, resume: boolean, args: readonly string[]): Promise<DataPlaneEnd> {
    this.fruitless++;
    this.#present = await this.#take(number, resume, args);
    return await this.#present.ended;
  }

  /** Ends the one that serves. */
  async stop(): Promise<void> {
    await Promise.all([this.#prepared?.stop(), this.#present?.stop()]);
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
    this.image.close();
  }

  /** One that went on does not know how long the first one took until the guest ran. */
  whole<E extends ProgressEvent | CompletedEvent>(event: E): E {
    const { instant } = event;
    if (instant === undefined) return event;
    return { ...event, instant: { ...instant, runningMs: instant.runningMs ?? this.#runningMs } };
  }

  /** Of one that was killed between QEMU's last page and its own last word. */
  completedUnsaid(): CompletedEvent {
    const { elapsedMs = 0, instant } = this.#progress ?? {};
    const completed = completedMapped({ ...this.report, path: this.image.name }, elapsedMs, false);
    return instant === undefined ? completed : { ...completed, instant };
  }

  /** The prepared one, where it knows all that it must. */
  async #take(number: number, resume: boolean, args: readonly string[]): Promise<DataPlane> {
    const prepared = this.#prepared;
    this.#prepared = null;
    if (prepared !== null && args.length === 0) return prepared;
    await prepared?.stop();
    return this.#start(number, resume, args);
  }

  #start(number: number, resume: boolean, args: readonly string[]): DataPlane {
    return new DataPlane({
      image: this.image,
      args: [
        ...["--connect", `unix:${this.socket(number)}`],
        ...(resume ? ["--resume"] : []),
        ...dataPlaneArguments(this.#options),
        ...args,
      ],
      onEvent: (event) => this.#hear(event, resume),
      log: this.#options.log ?? SILENT,
    });
  }

  #hear(event: RunEvent, resume: boolean): void {
    switch (event.event) {
      case "running":
        if (!resume) {
          this.#runningMs = event.elapsedMs;
          this.#tell(event);
        }
        this.onRunning();
        return;
      case "progress":
        this.#progress = this.whole(event);
        if (hasSent(event)) this.fruitless = 0;
        this.#tell(this.#progress);
        return;
      default:
        this.#tell(event);
    }
  }
}

function hasSent({ instant }: ProgressEvent): boolean {
  return instant !== undefined && instant.pagesOnDemand + instant.pagesInBackground + instant.zeroPages > 0;
}
