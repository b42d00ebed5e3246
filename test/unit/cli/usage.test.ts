import { once } from "node:events";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { runCommand, spawnCommand } from "./run-cli.ts";

const PAGE = readFileSync(new URL("../../../../docs/manager-contract.md", import.meta.url), "utf8");
const COMMANDS = [
  "save",
  "restore",
  "snapshot",
  "managed-save",
  "start",
  "managed-list",
  "managed-remove",
  "inspect",
  "verify",
  "convert",
  "extract",
  "diff",
  "recover",
  "capabilities",
  "demo",
  "bench",
] as const;

const helps = new Map<string, ReturnType<typeof runCommand>>();

/** Asked for once for each command. */
function helpOf(command: string): ReturnType<typeof runCommand> {
  const help = helps.get(command) ?? runCommand(command, "--help");
  helps.set(command, help);
  return help;
}

const LISTEN = ["--listen", "unix:/nowhere/save.sock"];

const MISTAKES: readonly (readonly [mistake: string, args: readonly string[], told: RegExp])[] = [
  ["an unknown command", ["safe"], /unknown command 'safe'.* see multifd-helper --help/],
  ["an unknown option", ["verify", "vm.mfd", "--wrokers", "2"], /unknown option '--wrokers'.*--workers/],
  ["no image", ["save", ...LISTEN], /missing required argument 'image'/],
  [
    "two images",
    ["inspect", "a", "b"],
    /too many arguments for 'inspect': expected 1 argument but got 2; see/,
  ],
  ["a value for a flag", ["save", "vm.mfd", ...LISTEN, "--hold=1"], /option '--hold' takes no value; see/],
  ["a long value for a flag", ["--version=the-newest-one"], /option '--version' takes no value; see/],
  [
    "no address to listen on",
    ["save", "vm.mfd"],
    /say which VM: --qmp PATH or --virsh DOMAIN, or --listen ADDRESS/,
  ],
  [
    "no address to connect to",
    ["restore", "vm.mfd"],
    /say where to restore to, one of: -- QEMU ARGS…, --qmp PATH, --connect ADDRESS/,
  ],
  ["an option without its value", ["inspect", "vm.mfd", "--offset"], /'--offset <bytes>' argument missing/],
  ["a size that is none", ["inspect", "vm.mfd", "--offset", "12q"], /--offset wants a size .*"12q"/],
  ["too many channels", ["save", "vm.mfd", ...LISTEN, "--channels", "256"], /--channels .* 0 to 255/],
  [
    "no channel timeout",
    ["save", "vm.mfd", ...LISTEN, "--connect-timeout", "0"],
    /--connect-timeout must be/,
  ],
  ["a wrong choice", ["verify", "vm.mfd", "--direct-io", "yes"], /--direct-io is one of auto, on, off/],
  ["a wrong log level", ["verify", "vm.mfd", "--log-level", "loud"], /--log-level is one of trace,/],
  ["an unknown format", ["save", "vm.mfd", ...LISTEN, "--format", "qcow2"], /--format is one of stream/],
  ["no VM to start", ["start"], /say which VM: its name, or --all/],
  ["one VM and all", ["managed-save", "web", "--all"], /say which VM: its name, or --all/],
  ["several jobs for one VM", ["managed-save", "web", "--jobs", "3"], /--jobs makes no sense without --all/],
  [
    "one monitor for all",
    ["managed-save", "--all", "--qmp", "q"],
    /--qmp makes no sense together with --all/,
  ],
  ["to forget all", ["start", "--all", "--discard"], /--discard makes no sense together with --all/],
  [
    "a pid file and no --detach",
    ["start", "web", "--pid-file", "p"],
    /--pid-file makes no sense without --detach/,
  ],
  [
    "a name that is a path",
    ["managed-remove", "../web"],
    /the name of a VM has 1 to 64 letters.*"\.\.\/web"/,
  ],
  [
    "an option of ours where QEMU writes",
    ["save", "vm.mfd", "--qmp", "/x", "--engine", "file", "--max-bytes", "1G"],
    /--max-bytes makes no sense together with --engine file/,
  ],
  [
    "holding what nobody decides but QEMU",
    ["save", "vm.mfd", "--virsh", "vm", "--hold"],
    /--hold makes no sense together with --virsh/,
  ],
  [
    "an engine of a QEMU that is only fed",
    ["restore", "vm.mfd", "--connect", "unix:/x", "--engine", "file"],
    /--engine makes no sense together with --connect/,
  ],
  [
    "a word about RAM that we look at ourselves",
    ["restore", "vm.mfd", "--qmp", "/x", "--zeroed-ram"],
    /--zeroed-ram makes no sense without --connect/,
  ],
  ["a demo of half a page", ["demo", "--ram", "2047"], /--ram wants .* at least 16M/],
  ["a demo without channels", ["demo", "--channels", "0"], /--channels .* 1 to 255/],
  ["metadata without a key", ["save", "vm.mfd", ...LISTEN, "--meta", "value"], /--meta wants KEY=VALUE/],
  ["metadata given twice", ["save", "vm.mfd", ...LISTEN, "--meta", "a=1", "--meta", "a=2"], /key a twice/],
  [
    "contradicting expectations",
    ["restore", "vm.mfd", "--connect", "unix:/x", "--channels", "4", "--expect", "channels=2"],
    /--channels 4 contradicts/,
  ],
];

test.each(MISTAKES)("%s is refused with exit status 2 and one sentence", async (_mistake, args, told) => {
  const { status, stdout, stderr } = await runCommand(...args);
  expect(status).toBe(2);
  expect(stdout).toBe("");
  expect(stderr).toMatch(/^multifd-helper: [^\n]+ \[USAGE\]\n$/);
  expect(stderr).not.toMatch(/[.;:]; see/);
  expect(stderr).toMatch(told);
});

test("under --json a mistake gives hello and failed, too", async () => {
  const { status, stdout, stderr } = await runCommand("save", "vm.mfd", "--json");
  expect(status).toBe(2);
  expect(stderr).toMatch(/^multifd-helper: [^\n]+ \[USAGE\]\n$/);
  const events = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(events).toMatchObject([
    { event: "hello", contract: 1 },
    { event: "failed", code: "USAGE", message: expect.stringContaining("--listen"), details: {} },
  ]);
});

test("a value for --json is a mistake that is told in JSON", async () => {
  const { status, stdout } = await runCommand("save", "vm.mfd", ...LISTEN, "--json=1");
  expect(status).toBe(2);
  const [hello, failed] = stdout.split("\n", 2).map((line) => JSON.parse(line));
  expect(hello).toMatchObject({ event: "hello" });
  expect(failed).toMatchObject({
    event: "failed",
    code: "USAGE",
    message: expect.stringMatching(/^option '--json' takes no value; see/),
  });
});

test("a command that answers with one object fails with one", async () => {
  const { status, stdout } = await runCommand("inspect", "--json");
  expect(status).toBe(2);
  expect(JSON.parse(stdout)).toMatchObject({ event: "failed", code: "USAGE" });
});

test("a log file that cannot be opened is an I/O failure", async () => {
  const { status, stderr } = await runCommand("verify", "vm.mfd", "--log-file", "/nowhere/log");
  expect(status).toBe(5);
  expect(stderr).toMatch(/^multifd-helper: the log file \/nowhere\/log cannot be opened: ENOENT \[IO\]\n$/);
});

test("a save that fails under --hold ends although stdin stays open", async () => {
  const child = spawnCommand("save", "/nowhere/vm.mfd", "--listen", "unix:/nowhere/save.sock", "--hold");
  const [status] = await once(child, "exit");
  expect(status).toBeGreaterThan(0);
});

test("without a command the help goes to stderr", async () => {
  const { status, stdout, stderr } = await runCommand();
  expect(status).toBe(2);
  expect(stdout).toBe("");
  expect(stderr).toMatch(/^Usage: multifd-helper[\s\S]*a command is missing or unknown[^\n]*\[USAGE\]\n$/);
});

test("the help names every command and every exit status", async () => {
  const { status, stdout } = await runCommand("--help");
  expect(status).toBe(0);
  for (const command of COMMANDS) expect(stdout).toMatch(new RegExp(`^ {2}${command} `, "m"));
  for (const exit of ["0", "1", "2", "3", "4", "5", "6", "7", "128\\+n"]) {
    expect(stdout).toMatch(new RegExp(`^ {2}${exit} {2}\\S`, "m"));
  }
});

test.each(COMMANDS)("the help of %s has an example", async (command) => {
  const { status, stdout } = await helpOf(command);
  expect(status).toBe(0);
  expect(stdout).toMatch(/Example:\n {2}multifd-helper .*/);
  expect(stdout).toContain(`multifd-helper ${command} `);
});

test("--version prints the version alone", async () => {
  const { status, stdout } = await runCommand("--version");
  expect(status).toBe(0);
  expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test("capabilities --json is one object that names what there is", async () => {
  const { status, stdout, stderr } = await runCommand("capabilities", "--json");
  expect(status).toBe(0);
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toMatchObject({
    program: "multifd-helper",
    contract: 1,
    commands: expect.arrayContaining([...COMMANDS]),
    formats: ["stream", "mapped-ram"],
    features: expect.arrayContaining(["hold", "offset", "meta-file"]),
    limits: { maxChannels: 255 },
    platform: { node: process.version, arch: process.arch },
  });
});

test("the contract page names every field of capabilities, and no option that does not exist", async () => {
  const { stdout } = await runCommand("capabilities", "--json");
  for (const field of Object.keys(JSON.parse(stdout))) expect(PAGE).toContain(`\`${field}\``);

  const helps = await Promise.all(COMMANDS.map(helpOf));
  const options = new Set(helps.flatMap((help) => help.stdout.match(/--[a-z][a-z-]+/g) ?? []));
  const named = new Set(PAGE.match(/--[a-z][a-z-]+/g));
  expect(named.size).toBeGreaterThan(10);
  for (const option of named) expect(options).toContain(option);
});

test("the contract page says of each feature what it means, and of no other", async () => {
  const { stdout } = await runCommand("capabilities", "--json");
  const features: string[] = JSON.parse(stdout).features;
  const [, table = ""] = PAGE.split("| feature ");
  const [rows = ""] = table.split("\n\n");
  const described = [...rows.matchAll(/^\| ((?:`[a-z-]+`(?:, )?)+) +\|/gm)].flatMap(
    ([, names = ""]) => names.match(/[a-z-]+/g) ?? [],
  );
  expect(described.toSorted()).toEqual(features.toSorted());
});

test("capabilities without --json is a page", async () => {
  const { stdout } = await runCommand("capabilities");
  expect(stdout).toMatch(/^multifd-helper \d.* \(contract 1\)\n {2}commands /);
});
