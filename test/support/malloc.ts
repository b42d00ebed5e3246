import koffi from "koffi";

const COUNTERS = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks"];
const Mallinfo2 = koffi.struct(
  Object.fromEntries([...COUNTERS, "fordblks", "keepcost"].map((name) => [name, "size_t"])),
);
const mallinfo2 = koffi.load(null).func("mallinfo2", Mallinfo2, []);

/** Bytes that the whole process has from malloc and has not freed; what is free between them does not count. */
export function allocatedBytes(): number {
  return Number(mallinfo2().uordblks);
}
