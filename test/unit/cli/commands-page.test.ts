import { expect, test } from "vitest";
import { findRepoRoot } from "../../support/repo.ts";
import { runCommand } from "./run-cli.ts";

const INTRODUCTION = `# Commands

What \`multifd-helper --help\` and the help of each command print. What the commands do to a VM is told in
[Driving QEMU](driving-qemu.md), what they say to programs in [the manager's contract](manager-contract.md).
`;

/** After a change of a help text: `npx vitest run commands-page -u`. */
test("the page of commands has the help of every command, to the letter", async () => {
  const { commands } = JSON.parse((await runCommand("capabilities", "--json")).stdout);
  const sections = await Promise.all([
    section("multifd-helper"),
    ...commands.map((command: string) => section(command, command)),
  ]);
  const page = [INTRODUCTION, ...sections].join("\n");
  await expect(page).toMatchFileSnapshot(`${findRepoRoot()}/docs/commands.md`);
});

async function section(title: string, ...command: string[]): Promise<string> {
  const { stdout } = await runCommand(...command, "--help");
  return `## ${title}\n\n\`\`\`text\n${stdout.trimEnd()}\n\`\`\`\n`;
}
