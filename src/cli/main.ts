#!/usr/bin/env node
import { setFlagsFromString } from "node:v8";
import { leave } from "./exit.ts";
import { runCli } from "./program.ts";

/*
 * The V8 of Node.js 20 optimises whatever runs for some milliseconds, in threads that compete with QEMU for the cores: a tenth of a
 * restore's processor time, and 8 MiB. A run is short, and its few hot loops are found all the same. Later ones do not know the flag.
 */
if (process.version.startsWith("v20.")) setFlagsFromString("--interrupt-budget=500000");

leave(await runCli(process.argv.slice(2)));
