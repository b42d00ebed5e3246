import assert from "node:assert/strict";
import type { Buffer } from "node:buffer";
import { bitmapBytes } from "../../src/formats/mapped-ram/model.ts";
import { protocolError } from "../../src/formats/migration/wire.ts";
import { ReturnPath } from "../../src/formats/postcopy/return-path.ts";
import { checkRequest } from "../../src/pool/paging/fault-server.ts";
import { SentPages } from "../../src/pool/paging/sent-pages.ts";
import { mapOf } from "../support/page-maps.ts";
import { cut } from "./mutate.ts";
import { outcomeOf, type Target } from "./outcome.ts";

const PAGE = 4096;
/** Those of the corpus's destination. */
const BLOCKS = [
  { name: "mem", pages: 100, held: [0, 1, 50, 99] },
  { name: "rom", pages: 5, held: [4] },
];
const MAP = mapOf(BLOCKS);

/** However it is cut, what a destination in postcopy answers comes to the same, and asks for pages that there are. */
export const answers: Target = (input, random) => {
  const whole = outcomeOf(() => hear([input]));
  const pieces = outcomeOf(() => hear(cut(random, input)));
  assert.deepEqual(pieces, whole, "cut into pieces the answers are others");
  return "value" in whole && whole.value.length > 1;
};

function hear(pieces: Iterable<Buffer>): unknown[] {
  const heard: unknown[] = [];
  const sent = new SentPages(MAP);
  const number = (block: string): number => BLOCKS.findIndex(({ name }) => name === block);
  const path = new ReturnPath(
    {
      request: (name, offset, length) => {
        const block = number(name);
        if (block < 0) throw protocolError(`no RAMBlock ${name}`, offset);
        checkRequest(MAP, block, PAGE, offset, length);
        const page = offset / PAGE;
        assert.ok(
          Number.isInteger(page) && page < MAP.block(block).usedLength / PAGE,
          "a request lies outside of its block",
        );
        if (!sent.has(block, page)) sent.add(block, page);
        heard.push([block, page]);
      },
      received: (name, bitmap) => {
        sent.take(number(name), bitmap);
        assert.ok(sent.missing >= 0 && sent.missing <= sent.total, "more is missing than there is");
        heard.push([name, [...bitmap]]);
      },
      pong: (value) => heard.push({ pong: value }),
      resumed: () => heard.push("resumed"),
      shut: (status) => heard.push({ shut: status }),
    },
    (name) => {
      const block = number(name);
      return block < 0 ? null : bitmapBytes(MAP.block(block));
    },
  );
  for (const piece of pieces) path.push(piece);
  return [...heard, sent.missing];
}
