/** The seed of this run of the matrix: CRASH_SEED repeats one, and `-t "^.* 17 "` one of its points. */
export const MATRIX_SEED: number = Number(process.env.CRASH_SEED ?? Math.floor(Math.random() * 2 ** 32));

interface Row {
  points: number;
  readonly outcomes: Map<string, number>;
}

/** Counts what came of the points of one cell, and prints it as a table. */
export class Tally {
  readonly #title: string;
  readonly #rows = new Map<string, Row>();

  constructor(title: string) {
    this.#title = title;
  }

  /** Runs one trial; its verdict's words, or "FAILED", are counted under phase and victim. */
  async count(
    point: { readonly phase: string; readonly victim: string },
    trial: () => Promise<object>,
  ): Promise<void> {
    const name = `${point.phase} | ${point.victim}`;
    const row = this.#rows.get(name) ?? { points: 0, outcomes: new Map<string, number>() };
    this.#rows.set(name, row);
    row.points++;
    try {
      for (const word of words(await trial())) add(row.outcomes, word);
    } catch (error) {
      add(row.outcomes, "FAILED");
      throw error;
    }
  }

  print(): void {
    const total = [...this.#rows.values()].reduce((sum, { points }) => sum + points, 0);
    const lines = [...this.#rows].map(([name, { points, outcomes }]) => {
      const counts = [...outcomes].map(([word, count]) => `${word} ${count}`).join(", ");
      return `| ${name} | ${points} | ${counts} |`;
    });
    console.log(
      [
        `\n${this.#title}: ${total} points, seed ${MATRIX_SEED}`,
        "| phase | hit | points | after it |",
        "| ----- | --- | ------ | -------- |",
        ...lines,
        "",
      ].join("\n"),
    );
  }
}

function words(verdict: object): string[] {
  return Object.entries(verdict).flatMap(([name, value]) =>
    value === true ? [name] : value === false ? [] : [String(value)],
  );
}

function add(counts: Map<string, number>, word: string): void {
  counts.set(word, (counts.get(word) ?? 0) + 1);
}
