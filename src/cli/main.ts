#!/usr/bin/env node
import { leave } from "./exit.ts";
import { runCli } from "./program.ts";

leave(await runCli(process.argv.slice(2)));
