const { workerData } = process.getBuiltinModule("node:worker_threads");

/**
 * What piscina loads into each thread: it imports the task's code, at once, by the URL in workerData. Were piscina given
 * the code itself, it would require() it first, and a thread that is ended inside a require() of an ES module takes the
 * whole process with it (SIGABRT, "IsGraphAsync must be used on an instantiated module"; Node.js 20.20).
 */
const code: Promise<Record<string, (task: object) => unknown>> = import(workerData.url);
// Told by the first task; a thread that is ended before has nobody to tell.
code.catch(() => undefined);

async function run({ name, task }: { readonly name: string; readonly task: object }): Promise<unknown> {
  const handler = (await code)[name];
  if (handler === undefined) throw new Error(`${workerData.url} has no task ${name}`);
  return await handler(task);
}

module.exports = { run };
