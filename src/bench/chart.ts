import type { CustomSeriesOption, SeriesOption } from "echarts";
import type { Spread } from "./statistics.ts";

/** Figures to be seen beside each other: one place per category, in it one bar (or point) per series. */
export interface Chart {
  readonly title: string;
  /** One line on what was done, and what the whiskers mean. */
  readonly subtitle?: string;
  /** lines: where the categories are steps of one quantity. */
  readonly kind: "bars" | "lines";
  /** What the vertical axis counts, from 0: "GiB/s". */
  readonly unit: string;
  /** What the categories are: "channels". */
  readonly categoriesName?: string;
  readonly categories: readonly string[];
  readonly series: readonly ChartSeries[];
}

export interface ChartSeries {
  readonly name: string;
  /** One per category; null: not measured. */
  readonly values: readonly (Spread | null)[];
}

export interface ChartSize {
  readonly width: number;
  readonly height: number;
}

const SIZE: ChartSize = { width: 960, height: 420 };
const FONT = "'DejaVu Sans', Verdana, sans-serif";
const INK = "#1f2933";
const FAINT = "#7b8794";
/** Told apart by people who see colours otherwise, too (Okabe and Ito). */
const COLORS = [
  "#0072b2",
  "#e69f00",
  "#009e73",
  "#cc79a7",
  "#56b4e9",
  "#d55e00",
  "#8c6bb1",
  "#666666",
] as const;
const EDGE = 16;
const LEGEND = { gap: 24, swatch: 18, fontSize: 12, row: 38 } as const;
/** Of the font size, on average. */
const LETTER_WIDTH = 0.62;
const CAP = 4;
/** More marks than this leave no room for figures at each. */
const MOST_LABELS = 40;

/** The chart as an SVG document that needs nothing else. echarts is loaded on the first call. */
export async function renderSvg(chart: Chart, size: ChartSize = SIZE): Promise<string> {
  const { init } = await loadEcharts();
  const head = chart.subtitle === undefined ? 44 : 62;
  const rows = legendRows(chart, size.width);
  const legend = rows * LEGEND.row;
  // A legend of more rows makes the chart higher, not its bars lower.
  const height = size.height + Math.max(0, rows - 1) * LEGEND.row;
  const drawing = init(null, null, { renderer: "svg", ssr: true, width: size.width, height });
  try {
    drawing.setOption({
      animation: false,
      backgroundColor: "#ffffff",
      color: [...COLORS],
      textStyle: { fontFamily: FONT, color: INK },
      title: {
        text: chart.title,
        subtext: chart.subtitle ?? "",
        left: EDGE,
        top: 12,
        textStyle: { fontSize: 18, color: INK },
        subtextStyle: { fontSize: 12, color: FAINT },
      },
      legend: {
        show: rows > 0,
        ...{ left: EDGE, top: head, itemGap: LEGEND.gap, itemWidth: LEGEND.swatch },
        data: chart.series.map(({ name }) => name),
      },
      grid: {
        left: 72,
        right: 24,
        top: head + legend + 42,
        bottom: chart.categoriesName === undefined ? 40 : 60,
      },
      xAxis: {
        type: "category",
        data: [...chart.categories],
        name: chart.categoriesName ?? "",
        nameLocation: "middle",
        nameGap: 32,
        axisTick: { show: false },
        axisLabel: { color: INK, interval: 0 },
      },
      yAxis: {
        type: "value",
        name: chart.unit,
        min: 0,
        nameTextStyle: { align: "left", padding: [0, 0, 0, -48], color: INK },
        axisLabel: { color: INK },
        splitLine: { lineStyle: { color: "#e4e7eb" } },
      },
      series: chart.series.flatMap((series, number) => [
        marks(chart, series),
        whiskers(chart, series, number),
      ]),
    });
    return drawing.renderToSVGString();
  } finally {
    drawing.dispose();
  }
}

/** Without a browser nobody can measure: these letters are rather wide. @param font as CSS has it, "12px …" */
function measureText(text: string, font = ""): { width: number } {
  const size = Number(/(\d+)px/.exec(font)?.[1] ?? LEGEND.fontSize);
  // By the width of a wide sign zrender knows how high a line is.
  return { width: text.length * size * (/[\u2e80-\uffff]/.test(text) ? 1 : LETTER_WIDTH) };
}

/** How many rows the legend takes: echarts wraps it, and tells nobody. One series needs none. */
function legendRows({ series }: Chart, width: number): number {
  if (series.length < 2) return 0;
  let rows = 1;
  let used = 0;
  for (const { name } of series) {
    const item = LEGEND.swatch + 5 + measureText(name).width + LEGEND.gap;
    // Behind the last one of a row there is no gap.
    if (used > 0 && used + item - LEGEND.gap > width - 2 * EDGE) {
      rows++;
      used = 0;
    }
    used += item;
  }
  return rows;
}

async function loadEcharts(): Promise<typeof import("echarts/core")> {
  const [core, { BarChart, CustomChart, LineChart }, parts, { SVGRenderer }] = await Promise.all([
    import("echarts/core"),
    import("echarts/charts"),
    import("echarts/components"),
    import("echarts/renderers"),
  ]);
  const { GridComponent, LegendComponent, TitleComponent } = parts;
  core.setPlatformAPI({ measureText });
  core.use([BarChart, CustomChart, LineChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer]);
  return core;
}

/** The medians. */
function marks(chart: Chart, { name, values }: ChartSeries): SeriesOption {
  const data = values.map((value) => value?.median ?? null);
  return chart.kind === "bars"
    ? { type: "bar", name, data, barGap: BAR_LAYOUT.barGap, barCategoryGap: BAR_LAYOUT.barCategoryGap }
    : {
        ...{ type: "line", name, data, symbol: "circle", symbolSize: 8, lineStyle: { width: 2 } },
        label: {
          show: labelled(chart),
          position: "right",
          distance: 10,
          ...{ fontSize: LABEL.fontSize, textBorderColor: "#ffffff", textBorderWidth: 3 },
          fontFamily: FONT,
          formatter: ({ value }: { value: unknown }) => figureOf(Number(value)),
          color: "inherit",
        },
      };
}

const BAR_LAYOUT = { barGap: "10%", barCategoryGap: "24%" } as const;

/** A line from the first to the third quartile on each mark, with the median's figure above. */
function whiskers(chart: Chart, { name, values }: ChartSeries, number: number): CustomSeriesOption {
  const data = values.flatMap((value, category) =>
    value === null ? [] : [[category, value.lower, value.median, value.upper]],
  );
  return {
    type: "custom",
    name,
    data,
    // The axis reaches as far as the whiskers do.
    encode: { x: 0, y: [1, 2, 3] },
    z: 10,
    silent: true,
    renderItem: (_, api) => {
      const [category, lower, middle, upper] = [0, 1, 2, 3].map((field) => Number(api.value(field))) as Four;
      const count = chart.series.length;
      const offset =
        chart.kind === "bars" ? (api.barLayout?.({ ...BAR_LAYOUT, count })?.[number]?.offsetCenter ?? 0) : 0;
      const [center, top] = api.coord([category, upper]) as [number, number];
      const [, bottom] = api.coord([category, lower]) as [number, number];
      const x = center + offset;
      const stroke = chart.kind === "bars" ? INK : colorOf(number);
      const line = (x1: number, y1: number, x2: number, y2: number) =>
        ({ type: "line", shape: { x1, y1, x2, y2 }, style: { stroke, lineWidth: 1.2 } }) as const;
      const figure = {
        type: "text",
        style: { text: figureOf(middle), x, y: top - 5, ...LABEL },
      } as const;
      return {
        type: "group",
        children: [
          line(x, bottom, x, top),
          line(x - CAP, top, x + CAP, top),
          line(x - CAP, bottom, x + CAP, bottom),
          ...(chart.kind === "bars" && labelled(chart) ? [figure] : []),
        ],
      };
    },
  };
}

function colorOf(series: number): string {
  return COLORS[series % COLORS.length] as string;
}

function labelled({ series, categories }: Chart): boolean {
  return series.length * categories.length <= MOST_LABELS;
}

type Four = [number, number, number, number];

const LABEL = {
  align: "center",
  verticalAlign: "bottom",
  fontSize: 11,
  fontFamily: FONT,
  fill: INK,
} as const;

/** With three digits that say something: 1234, 56.7, 1.23, 0.045. */
export function figureOf(value: number): string {
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1);
  return value >= 0.1 || value === 0 ? value.toFixed(2) : value.toFixed(3);
}
