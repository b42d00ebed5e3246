#!/usr/bin/env node
import { allowThreadTuning } from "../pool/thread-tuning.ts";
import { leave } from "./exit.ts";
import { runCli } from "./program.ts";

allowThreadTuning();
leave(await runCli(process.argv.slice(2)));
