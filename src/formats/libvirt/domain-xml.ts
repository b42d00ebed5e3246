const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** What may stand in XML that is no tag, and how it ends. */
const ASIDES: readonly (readonly [opening: string, closing: string])[] = [
  ["<!--", "-->"],
  ["<![CDATA[", "]]>"],
  ["<?", "?>"],
  ["<!", ">"],
];

/**
 * The UUID of a domain, which QEMU got with -uuid: the element `uuid` right inside of the outermost one, as elements of
 * that name elsewhere (metadata, sysinfo) are something else. Lower case; null when there is none, or the XML is none.
 */
export function domainUuid(xml: string): string | null {
  let depth = 0;
  for (let at = xml.indexOf("<"); at >= 0; at = xml.indexOf("<", at)) {
    const aside = ASIDES.find(([opening]) => xml.startsWith(opening, at));
    const end = aside === undefined ? tagEnd(xml, at) : behind(xml, aside[1], at + aside[0].length);
    if (end < 0) return null;
    if (aside === undefined) {
      const tag = xml.slice(at, end);
      if (depth === 1 && /^<uuid\s*>$/.test(tag)) return uuidAt(xml, end);
      if (tag.startsWith("</")) depth--;
      else if (!tag.endsWith("/>")) depth++;
    }
    at = end;
  }
  return null;
}

function uuidAt(xml: string, at: number): string | null {
  const text = xml.slice(at, xml.indexOf("<", at)).trim().toLowerCase();
  return UUID.test(text) ? text : null;
}

/** Behind the `>` of a tag; those in the values of its attributes do not count. */
function tagEnd(xml: string, from: number): number {
  for (let at = from; at < xml.length; at++) {
    const mark = xml[at] as string;
    if (mark === ">") return at + 1;
    if (mark !== '"' && mark !== "'") continue;
    at = xml.indexOf(mark, at + 1);
    if (at < 0) return -1;
  }
  return -1;
}

function behind(xml: string, closing: string, from: number): number {
  const at = xml.indexOf(closing, from);
  return at < 0 ? -1 : at + closing.length;
}
