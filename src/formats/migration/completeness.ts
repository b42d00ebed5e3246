import type { MainSummary, MultifdSummary } from "./summary.ts";

/** What the channels of one migration prove together. */
export interface Completeness {
  /** undecided: nothing contradicts, but something needed for the proof cannot be read from the stream. */
  readonly verdict: "complete" | "incomplete" | "undecided";
  /** Whether this evidence alone may seal an image; without it only the manager's word can. */
  readonly sealable: boolean;
  /** What is wrong or in doubt, in English clauses that "; " joins to one sentence; empty when complete. */
  readonly reasons: readonly string[];
}

/**
 * Judges whether main and the multifd channels, all read to their ends, are one whole migration stream.
 * `expectedChannels` is how many multifd channels QEMU was told to use, when that is known: without it, a lost
 * channel with the highest number shows only in RAM that nobody carried.
 * Completeness is not success: a migration cancelled after its last byte is complete on the wire.
 */
export function judgeCompleteness(
  main: MainSummary | null,
  channels: readonly MultifdSummary[],
  expectedChannels: number | null = null,
): Completeness {
  const faults = [
    ...mainFaults(main),
    ...channelFaults(channels, expectedChannels),
    ...(main === null ? [] : [...barrierFaults(main, channels), ...disagreements(main, channels)]),
  ];
  if (main === null || faults.length > 0) return { verdict: "incomplete", sealable: false, reasons: faults };

  const unproved = main.undecided.map((reason) => `the main channel cannot be judged: ${reason}`);
  if (main.eofByte === null) {
    unproved.push(`the main channel's ${main.bytes} bytes do not end with an EOF byte and a vmdescription`);
  }
  const uncarried = expectedChannels === null ? coverageDoubts(main, channels) : [];
  const reasons = [...unproved, ...uncarried];
  if (reasons.length === 0) return { verdict: "complete", sealable: true, reasons };
  return { verdict: "undecided", sealable: main.eofByte !== null && uncarried.length === 0, reasons };
}

/**
 * Whether the destination's RAM must be zero before this stream is loaded: QEMU does not write a zero page that
 * came in a multifd packet for the first time (7.2 never does), and leaves pages alone that nobody carried.
 * Zero records on main do clear. With x-ignore-shared the answer is no: there RAM is not in the stream but
 * in a shared file, which zeroing would destroy.
 */
export function needsZeroedRam(main: MainSummary | null, channels: readonly MultifdSummary[]): boolean {
  if (main?.capabilities.includes("x-ignore-shared")) return false;
  if (main === null || main.ramBlocks.length === 0) return true;
  const zeroInPackets = channels.some((channel) => channel.zeroPages > 0);
  return zeroInPackets || carriedPages(main, channels) < ramPages(main);
}

function mainFaults(main: MainSummary | null): string[] {
  if (main === null) return ["the main channel is missing"];
  if (main.undecided.length > 0) return [];
  if (main.ramEnd === null) {
    return [`the main channel ended after ${main.bytes} bytes, before the END section of RAM`];
  }
  if (main.eofByte === null) {
    const ramEnd = `after ${main.bytes} bytes (RAM ended at ${main.ramEnd})`;
    return [
      `the main channel ended ${ramEnd}, without the EOF byte and vmdescription that close a migration`,
    ];
  }
  return [];
}

function channelFaults(channels: readonly MultifdSummary[], expected: number | null): string[] {
  const faults: string[] = [];
  const ids = new Set(channels.map((channel) => channel.id));
  const count = Math.max(expected ?? 0, ...channels.map((channel) => channel.id + 1), 0);
  for (let id = 0; id < count; id++) {
    if (!ids.has(id)) faults.push(`multifd channel ${id} of ${count} is missing`);
  }
  for (const id of ids) {
    const times = channels.filter((channel) => channel.id === id).length;
    if (times > 1) faults.push(`multifd channel ${id} came ${times} times`);
  }
  if (expected !== null && count > expected) {
    faults.push(`multifd channel ${count - 1} came, although only ${expected} channels were expected`);
  }
  for (const channel of channels) {
    if (!channel.atPacketBoundary) {
      faults.push(
        `multifd channel ${channel.id} ended after ${channel.bytes} bytes, in the middle of a packet`,
      );
    }
  }
  return faults;
}

function barrierFaults(main: MainSummary, channels: readonly MultifdSummary[]): string[] {
  if (channels.length === 0) return lostChannels(main);
  const followed = main.barrierMode !== null;
  const expected = followed ? main.barriers.length : (channels[0]?.syncEnds.length ?? 0);
  const against = followed ? "main has" : `channel ${channels[0]?.id} has`;
  const faults = channels
    .filter((channel) => channel.syncEnds.length !== expected)
    .map(
      ({ id, syncEnds }) => `multifd channel ${id} has ${syncEnds.length} SYNCs, but ${against} ${expected}`,
    );
  // QEMU refuses to combine background snapshots, the only streams without RAM END, with multifd.
  if (followed && main.ramEnd === null && main.undecided.length > 0) {
    faults.push(
      `the main channel has no END section of RAM, although ${channels.length} multifd channels came`,
    );
  }
  return faults;
}

/** Without multifd channels all of RAM must be on main; QEMU 8.1 has MULTIFD_FLUSH there even then. */
function lostChannels(main: MainSummary): string[] {
  if (main.ramEnd === null || main.pageRecords > 0) return [];
  if (main.barrierMode === "modern") {
    return [
      `main has ${main.barriers.length} barriers for multifd channels and no page, but no channel came`,
    ];
  }
  if (main.capabilities.includes("x-ignore-shared") || main.zeroRecords >= ramPages(main)) return [];
  const found = `${main.zeroRecords} zero pages and no other for ${ramPages(main)} pages of RAM`;
  return [`main has ${found}, so the multifd channels that carried the rest are missing`];
}

function disagreements(main: MainSummary, channels: readonly MultifdSummary[]): string[] {
  const faults: string[] = [];
  const uuids = new Set(channels.map((channel) => channel.uuid));
  if (main.uuid !== null) uuids.add(main.uuid);
  if (uuids.size > 1) faults.push(`the channels belong to different VMs: UUIDs ${[...uuids].join(", ")}`);
  const methods = new Set(channels.map((channel) => channel.compression).filter((method) => method !== null));
  if (methods.size > 1) faults.push(`the channels are compressed differently: ${[...methods].join(", ")}`);
  return faults;
}

/**
 * Each page of RAM travels at least once, unless it is shared (x-ignore-shared, where the stream does not say
 * which) or the guest gave it back (virtio-mem, free page hints). So too few pages are a doubt, not a fault.
 * A virtio-mem device explains any number of them.
 */
function coverageDoubts(main: MainSummary, channels: readonly MultifdSummary[]): string[] {
  if (main.ramEnd === null || main.ramBlocks.length === 0) return [];
  const carried = carriedPages(main, channels);
  if (main.capabilities.includes("x-ignore-shared")) {
    if (channels.length > 0 || main.pageRecords > 0) return [];
    return [
      "with x-ignore-shared and no page on main it cannot be told whether multifd channels are missing",
    ];
  }
  const unplugged = main.devices.some((name) => name.includes("virtio-mem"));
  if (carried >= ramPages(main) || unplugged) return [];
  const numbers = `${carried} of ${ramPages(main)} pages of RAM travelled on main and ${channels.length} channels`;
  return [
    `only ${numbers}: a channel is missing, or the guest gave pages back; the number of channels would tell`,
  ];
}

function carriedPages(main: MainSummary, channels: readonly MultifdSummary[]): number {
  const onMain = main.pageRecords + main.zeroRecords;
  return channels.reduce((sum, channel) => sum + channel.normalPages + channel.zeroPages, onMain);
}

function ramPages(main: MainSummary): number {
  const bytes = main.ramBlocks.reduce((sum, block) => sum + block.usedLength, 0);
  return bytes / main.pageSize;
}
