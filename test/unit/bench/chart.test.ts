import { describe, expect, test } from "vitest";
import { type Chart, figureOf, renderSvg } from "../../../src/bench/chart.ts";
import { renderPage, stackSvgs } from "../../../src/bench/chart-page.ts";

const at = (median: number) => ({ lower: median * 0.9, median, upper: median * 1.1 });

const CHART: Chart = {
  title: "save & restore",
  subtitle: "medians of 5 rounds",
  kind: "bars",
  unit: "GiB/s",
  categoriesName: "channels",
  categories: ["1", "4"],
  series: [
    { name: "stream", values: [at(1.234), at(17.21)] },
    { name: "mapped-ram", values: [at(0.0432), null] },
  ],
};

/** All that stands in it, and whether its elements close as they open: what a strict reader would refuse. */
function textsOf(svg: string): string[] {
  const open: string[] = [];
  for (const [, closing, name, selfClosing] of svg.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/gi)) {
    if (closing) expect(open.pop()).toBe(name);
    else if (!selfClosing) open.push(name as string);
  }
  expect(open).toEqual([]);
  expect(svg).not.toMatch(/&(?!amp;|lt;|gt;|quot;|#39;|#x27;)/);
  return [...svg.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map(([, text]) => text as string);
}

describe("a chart", () => {
  test("has title, units, names and every figure that was measured", async () => {
    const texts = textsOf(await renderSvg(CHART));
    for (const text of ["save &amp; restore", "medians of 5 rounds", "GiB/s", "channels", "1", "4"]) {
      expect(texts).toContain(text);
    }
    expect(texts).toEqual(expect.arrayContaining(["stream", "mapped-ram", "1.23", "17.2", "0.043"]));
    expect(texts.filter((text) => text.startsWith("NaN"))).toEqual([]);
  });

  test("has an axis from 0, also for lines that begin far above", async () => {
    const values = [at(90), at(99)];
    const lines: Chart = { ...CHART, kind: "lines", series: [{ name: "one", values }] };
    expect(textsOf(await renderSvg(lines))).toEqual(expect.arrayContaining(["0", "90.0", "99.0"]));
  });

  test("figures have three digits that say something", () => {
    expect([1234.5, 56.78, 1.234, 0.0456, 0].map(figureOf)).toEqual([
      "1235",
      "56.8",
      "1.23",
      "0.046",
      "0.00",
    ]);
  });

  test("several stand below each other in one document", async () => {
    const small = await renderSvg(CHART, { width: 400, height: 300 });
    const stacked = stackSvgs([await renderSvg(CHART), small]);
    expect(textsOf(stacked)).toContain("17.2");
    expect(stacked).toMatch(/^<svg [^>]*width="960" height="732"/);
  });

  test("come in a page, in which names from outside cannot be markup", () => {
    const page = renderPage({ title: "a<b", lines: ["<i>"], charts: ["<svg></svg>"], table: "1 < 2" });
    expect(page).toContain("<title>a&lt;b</title>");
    expect(page).toContain("<p>&lt;i&gt;</p>");
    expect(page).toContain("<svg></svg>");
    expect(page).toContain("<pre>1 &lt; 2</pre>");
  });
});
