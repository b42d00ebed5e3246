/** What a page of charts says around them. */
export interface ChartPage {
  readonly title: string;
  /** Paragraphs above the charts. */
  readonly lines: readonly string[];
  /** Whole SVG documents. */
  readonly charts: readonly string[];
  /** Preformatted text below them: the figures as a table. */
  readonly table?: string;
}

const GAP = 12;

/** Charts below each other as one SVG document. @param charts as renderSvg gives them */
export function stackSvgs(charts: readonly string[]): string {
  const sizes = charts.map(sizeOf);
  const width = Math.max(...sizes.map((size) => size.width));
  const height = sizes.reduce((sum, size) => sum + size.height, GAP * (charts.length - 1));
  const placed = charts.map((chart, number) => {
    const y = sizes.slice(0, number).reduce((sum, size) => sum + size.height + GAP, 0);
    return chart.replace(/^<svg /, `<svg y="${y}" `);
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    ...placed,
    "</svg>\n",
  ].join("\n");
}

/** One HTML document that needs no other file. */
export function renderPage({ title, lines, charts, table }: ChartPage): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeText(title)}</title>
<style>
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font-family: system-ui, sans-serif; color: #1f2933; }
svg { display: block; width: 100%; height: auto; margin: 1.5rem 0; }
pre { overflow-x: auto; font-size: 0.85rem; }
</style>
</head>
<body>
<h1>${escapeText(title)}</h1>
${lines.map((line) => `<p>${escapeText(line)}</p>`).join("\n")}
${charts.join("\n")}
${table === undefined ? "" : `<pre>${escapeText(table)}</pre>\n`}</body>
</html>
`;
}

function sizeOf(svg: string): { width: number; height: number } {
  const [, width, height] = /^<svg [^>]*?width="(\d+)" height="(\d+)"/.exec(svg) ?? [];
  return { width: Number(width), height: Number(height) };
}

function escapeText(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
