import { setImmediate as nextTurn } from "node:timers/promises";
import { bitmapBytes } from "../../formats/mapped-ram/model.ts";
import { PAGE_SIZE, protocolError } from "../../formats/migration/wire.ts";
import { askReceived, RESUME } from "../../formats/postcopy/commands.ts";
import { hostPageOf, PONG_LOADED, PONG_OPENED } from "../../formats/postcopy/opening.ts";
import { PageSections } from "../../formats/postcopy/page-section.ts";
import { ControlBlock } from "../control-block.ts";
import type { PagingTask, ServePart } from "../messages.ts";
import { Background } from "./background.ts";
import { Board } from "./board.ts";
import { Destination } from "./destination.ts";
import { checkRequest, FaultServer } from "./fault-server.ts";
import { HugePages, hugePagesOf } from "./huge-pages.ts";
import { type Pace, paceOf } from "./pace.ts";
import { PageMap } from "./page-map.ts";
import { SentPages } from "./sent-pages.ts";
import { Slots } from "./slots.ts";

/** So often the thread says that it lives. */
const BEAT_MS = 250;

/**
 * Is the source of a migration in postcopy: sends what stands before pages, then pages as the guest asks for them and, in
 * between, all the others, and ends it when the destination has them all.
 * @throws MultifdError DESTINATION_CLOSED, IMAGE_DAMAGED, IO, PROTOCOL, QEMU_FAILED
 */
export async function servePages(task: PagingTask, part: ServePart): Promise<void> {
  const server = new PageServer(task, part);
  try {
    await (part.start.kind === "open" ? server.open(part.start) : server.resume());
    await server.pushAll();
    await server.end();
  } finally {
    server.close();
  }
}

class PageServer {
  readonly #task: PagingTask;
  readonly #control: ControlBlock;
  readonly #board: Board;
  readonly #map: PageMap;
  readonly #sent: SentPages;
  readonly #destination: Destination;
  readonly #sections: PageSections;
  readonly #pace: Pace;
  readonly #faults: FaultServer;
  readonly #huge: HugePages;
  readonly #background: Background;
  readonly #numbers: ReadonlyMap<string, number>;
  readonly #beat: NodeJS.Timeout;
  /** Blocks of which the destination has said what it has. */
  readonly #received = new Set<string>();
  /** A destination that is resumed has not said all that it has. */
  #unknown: boolean;

  constructor(task: PagingTask, part: ServePart) {
    const { blocks } = task;
    this.#task = task;
    this.#unknown = part.start.kind === "resume";
    this.#control = new ControlBlock(task.control);
    this.#board = new Board(task.board);
    this.#map = new PageMap(blocks, task.pages);
    this.#sent = new SentPages(this.#map);
    this.#sections = new PageSections(part.ramId);
    this.#pace = paceOf(part.backgroundRate);
    this.#numbers = new Map(blocks.map(({ name }, number) => [name, number]));
    this.#control.take(0);
    const talk = {
      request: (block: string, offset: number, length: number) => this.#request(block, offset, length),
      received: (block: string, bitmap: Uint8Array) => this.#take(block, bitmap),
    };
    this.#destination = new Destination(part.socketFd, this.#control, talk, (name) => {
      const block = this.#numbers.get(name);
      return block === undefined ? null : bitmapBytes(this.#map.block(block));
    });
    const paging = {
      map: this.#map,
      sent: this.#sent,
      sections: this.#sections,
      link: this.#destination.link,
      board: this.#board,
      pace: this.#pace,
      fd: part.cachedFd,
      noteSent: () => this.#noteSent(),
    };
    this.#huge = new HugePages(paging);
    this.#faults = new FaultServer(paging, this.#huge);
    const small = [...blocks.keys()].filter((number) => this.#hostPage(number) === PAGE_SIZE);
    const slots = new Slots(part.slots.count, part.slots.memory);
    this.#background = new Background(this.#map, this.#sent, slots, this.#sections, small);
    this.#beat = setInterval(() => this.#board.addBeat(), BEAT_MS);
  }

  async open({ opening, launch, firstByteAt }: Extract<ServePart["start"], { kind: "open" }>): Promise<void> {
    const { fd } = this.#task;
    await this.#destination.sendSteps(fd, opening);
    await this.#destination.whenPonged(PONG_OPENED);
    this.#board.setOpened();
    this.#control.ring();
    await this.#destination.until(() => this.#board.mayLaunch);
    await this.#destination.sendSteps(fd, launch.slice(0, -1));
    // Its last step makes the package whole: the destination may go through it to its end, which is the word to run.
    this.#board.setTold();
    await this.#destination.sendSteps(fd, launch.slice(-1));
    await this.#destination.whenPonged(PONG_LOADED);
    this.#board.setRan(Number(process.hrtime.bigint() - firstByteAt) / 1000);
    this.#control.ring();
  }

  /** What the destination has is what it says: the first block's bitmap was asked for as the connection was made. */
  async resume(): Promise<void> {
    const { blocks } = this.#task;
    for (const { name } of blocks.slice(1)) await this.#destination.link.send([askReceived(name)]);
    await this.#destination.until(() => this.#received.size === blocks.length);
    this.#noteSent();
    this.#unknown = false;
    await this.#destination.link.send([RESUME]);
    await this.#destination.whenResumed();
    this.#board.setRan(0);
    this.#control.ring();
  }

  /** Until the destination has every page of the image. */
  async pushAll(): Promise<void> {
    if (this.#pace.moves) {
      await this.#pushSmall();
      await this.#pushHuge();
    }
    await this.#destination.until(() => this.#sent.missing === 0);
  }

  async #pushSmall(): Promise<void> {
    for (;;) {
      this.#destination.check();
      if (this.#background.assign()) this.#control.ring();
      if (this.#background.exhausted) return;
      await this.#destination.until(() => this.#background.ready);
      await this.#rest();
      const chunk = this.#background.next(this.#pace.chunkPages);
      if (chunk === null) continue;
      this.#pace.sent(chunk.pages * PAGE_SIZE);
      this.#board.addInBackground(chunk.pages);
      await this.#sendBetween(chunk.parts);
      this.#noteSent();
      // What the guest has asked for meanwhile is read, and answered, before the next chunk.
      await nextTurn();
    }
  }

  async #pushHuge(): Promise<void> {
    for (const [number, block] of this.#task.blocks.entries()) {
      const hostPage = this.#hostPage(number);
      if (hostPage === PAGE_SIZE) continue;
      for (const start of hugePagesOf(block, number, hostPage, this.#sent)) {
        await this.#rest();
        this.#pace.sent(hostPage);
        await this.#huge.serve(number, start, hostPage, null);
        this.#destination.check();
      }
    }
  }

  async end(): Promise<void> {
    this.#destination.check();
    this.#sent.close();
    await this.#sendBetween([this.#sections.endOfRam()]);
    this.#control.setTailSent();
    await this.#destination.whenShut();
  }

  close(): void {
    clearInterval(this.#beat);
    this.#destination.link.close();
  }

  #request(name: string, offset: number, length: number): void {
    const since = performance.now();
    const block = this.#numbers.get(name);
    if (block === undefined)
      throw protocolError(`the destination asks for pages of RAMBlock "${name}"`, offset);
    const hostPage = this.#hostPage(block);
    checkRequest(this.#map, block, hostPage, offset, length);
    // It asks again for all that it waits for once it is resumed: migrate_send_rp_req_pages_pending, migration/migration.c.
    if (this.#unknown) return;
    if (hostPage !== PAGE_SIZE) {
      void this.#huge.serve(block, offset, hostPage, since);
      return;
    }
    this.#huge.between(() => this.#faults.serve(block, offset / PAGE_SIZE, since));
    this.#background.touched(block, offset / PAGE_SIZE);
  }

  #take(name: string, bitmap: Uint8Array): void {
    this.#sent.take(this.#numbers.get(name) as number, bitmap);
    this.#received.add(name);
  }

  #noteSent(): void {
    this.#board.sent = this.#sent.total - this.#sent.missing;
    if (this.#sent.missing === 0) this.#control.ring();
  }

  /** Not in the middle of a huge page. */
  async #sendBetween(parts: readonly Uint8Array[]): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#huge.between(() => this.#destination.link.send(parts).then(resolve, reject));
    });
  }

  /** Waits as long as the background has to, and anything is left to be sent. */
  async #rest(): Promise<void> {
    if (this.#pace.rest < 1) return;
    const timer = setTimeout(() => this.#control.ring(), this.#pace.rest);
    try {
      await this.#destination.until(() => this.#pace.rest < 1 || this.#sent.missing === 0);
    } finally {
      clearTimeout(timer);
    }
  }

  #hostPage(block: number): number {
    return hostPageOf(this.#map.block(block), this.#task.hostPages);
  }
}
