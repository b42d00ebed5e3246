import { type Sampled, SECONDS_A_SAMPLE } from "./record.ts";

/** Of whom the samples are told apart. */
export type Party = "helper" | "QEMU" | "others";

/** Seconds of processor time by what they went into. */
export type Shares = Readonly<Record<string, number>>;

interface Kind {
  readonly name: string;
  /** Of any function that was being run. */
  readonly within?: RegExp;
  /** Of the file of the innermost one. */
  readonly file?: RegExp;
}

/** The first that fits counts. */
const KINDS: Readonly<Record<Party, readonly Kind[]>> = {
  helper: [
    { name: "checksums", file: /crc32/ },
    { name: "sockets", within: /^(unix_stream_|sock_|__sys_recv|__sys_send)/ },
    { name: "disk", within: /^(ksys_p(read|write)64|__x64_sys_(pread|pwrite|fallocate|fdatasync|fsync))/ },
    {
      name: "V8's compiler and collector",
      within: /PlatformWorkerThread|OptimizingCompile|Heap::CollectGarbage/,
    },
    {
      name: "start: Node.js, threads, code",
      within:
        /InitializeOncePerProcess|CreateEnvironment|RunBootstrapping|BootstrapRealm|NewIsolate|LoadEnvironment|ModuleWrap|CompileFunction|BuiltinLoader|FileHandle::Close|execve|_dl_/,
    },
    {
      name: "waking and waiting",
      within: /^(do_futex|__x64_sys_futex|do_epoll|__x64_sys_epoll|eventfd_|ep_)/,
    },
  ],
  QEMU: [
    { name: "sockets", within: /^(unix_stream_|sock_|__sys_recv|__sys_send)/ },
    { name: "page faults", within: /^(asm_exc_page_fault|exc_page_fault|handle_mm_fault)/ },
    {
      name: "disk",
      within: /^(ksys_p(read|write)|do_p(read|write)v|__x64_sys_(p(read|write)|fallocate|fdatasync|fsync))/,
    },
  ],
  others: [],
};
const REST: Readonly<Record<Party, string>> = {
  helper: "JavaScript and its event loop",
  QEMU: "its own code",
  others: "others",
};

export const COLUMNS: Readonly<Record<Party, readonly string[]>> = {
  helper: [...KINDS.helper.map(({ name }) => name), REST.helper],
  QEMU: [...KINDS.QEMU.map(({ name }) => name), REST.QEMU],
  others: [REST.others],
};

/** Adds samples up. Idle cores are nobody's. */
export async function shareOut(samples: AsyncIterable<Sampled>): Promise<Readonly<Record<Party, Shares>>> {
  const sums: Record<Party, Record<string, number>> = { helper: {}, QEMU: {}, others: {} };
  for await (const sample of samples) {
    if (sample.pid === 0) continue;
    const party = partyOf(sample);
    const kind = kindOf(party, sample);
    sums[party][kind] = (sums[party][kind] ?? 0) + SECONDS_A_SAMPLE;
  }
  if (total(sums.QEMU) === 0) throw new Error("perf has seen no QEMU: may it look at all processes?");
  return sums;
}

function partyOf({ command, pid }: Sampled): Party {
  if (command.startsWith("qemu")) return "QEMU";
  return command === "node" && pid !== process.pid ? "helper" : "others";
}

function kindOf(party: Party, { frames }: Sampled): string {
  const fitting = KINDS[party].find(
    ({ within, file }) =>
      (within !== undefined && frames.some(({ name }) => within.test(name))) ||
      file?.test(frames[0]?.file ?? ""),
  );
  return fitting?.name ?? REST[party];
}

export function total(shares: Shares): number {
  return Object.values(shares).reduce((sum, seconds) => sum + seconds, 0);
}
