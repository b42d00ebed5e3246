export type Row = readonly [label: string, value: string | undefined];

/** A heading and aligned rows; rows without a value are left out. */
export function section(heading: string, rows: readonly Row[]): string {
  const width = Math.max(12, ...rows.map(([label]) => label.length));
  const lines = rows.flatMap(([label, value]) =>
    value === undefined ? [] : [`  ${printable(label).padEnd(width)}  ${printable(value)}`],
  );
  return [printable(heading), ...lines].join("\n");
}

/** Names come from the image, and control characters in them could steer the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, "\ufffd");
}
