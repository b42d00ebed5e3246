import { expect, test } from "vitest";
import { domainUuid } from "../../../src/formats/libvirt/domain-xml.ts";

const UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
const OTHER = "00000000-1111-2222-3333-444444444444";

test.each([
  ["as libvirt writes it", `<domain type='kvm' id='1'>\n  <name>a</name>\n  <uuid>${UUID}</uuid>\n</domain>`],
  ["in capitals", `<domain><uuid>${UUID.toUpperCase()}</uuid></domain>`],
  ["on a line of its own", `<domain><uuid >\n${UUID}\n</uuid></domain>`],
  [
    "behind metadata",
    `<domain><metadata><a><uuid>${OTHER}</uuid></a></metadata><uuid>${UUID}</uuid></domain>`,
  ],
  [
    "behind a comment",
    `<?xml version='1.0'?><domain><!-- <uuid>${OTHER}</uuid> --><uuid>${UUID}</uuid></domain>`,
  ],
  [
    "behind text that looks so",
    `<domain><title><![CDATA[</title><uuid>]]></title><uuid>${UUID}</uuid></domain>`,
  ],
  ["behind a tag in an attribute", `<domain a="<uuid>" b='/>'><on_reboot/><uuid>${UUID}</uuid></domain>`],
])("a domain's UUID is found %s", (_how, xml) => {
  expect(domainUuid(xml)).toBe(UUID);
});

test.each([
  ["no uuid", "<domain><name>a</name></domain>"],
  ["one elsewhere only", `<domain><metadata><uuid>${OTHER}</uuid></metadata></domain>`],
  ["one of another kind", `<domain><uuid>none</uuid></domain>`],
  ["an empty one", `<domain><uuid/></domain>`],
  ["a tag without an end", `<domain><a b='<uuid>${UUID}</uuid>`],
  ["a comment without an end", `<domain><!-- <uuid>${UUID}</uuid>`],
  ["no XML at all", "domain"],
])("a domain with %s has none", (_what, xml) => {
  expect(domainUuid(xml)).toBeNull();
});

test("a hostile text takes no longer than its length asks for", () => {
  for (const piece of ["<", "<a", "<!--", "<a '", "<a>", "</a>"]) {
    expect(domainUuid(piece.repeat(2 ** 21 / piece.length))).toBeNull();
  }
});
