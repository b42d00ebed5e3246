import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { expect, test } from "vitest";
import { pickAccelerator } from "../../src/demo/accelerator.ts";
import { useHelpers } from "../support/helper-process.ts";
import { type OperatorVm, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { settingsOf } from "../support/vm-flows.ts";

const RAM = 64 * 2 ** 20;
