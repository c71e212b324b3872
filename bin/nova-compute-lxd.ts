// The process nova-compute: arguments, environment and signals handed to the program.
import { flushCompileCache } from 'node:module';
import { homedir, hostname, tmpdir } from 'node:os';
import { runProgram } from '#src/compute/service/program.ts';
import { raisePriority } from '#src/lib/priority.ts';

// heartbeats are due however busy the guests are
raisePriority();

// a killed process writes nothing, so what was compiled is kept now
flushCompileCache();

// what operators look for with ps and pgrep
process.title = 'nova-compute';

const ending = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    if (ending.signal.aborted) process.exit(1);
    ending.abort(new Error(signal));
  });
}

process.exitCode = await runProgram({
  args: process.argv.slice(2),
  environment: process.env,
  hostname: hostname(),
  homeFolder: homedir(),
  tempFolder: tmpdir(),
  print: (line) => void process.stdout.write(`${line}\n`),
  complain: (line) => void process.stderr.write(`${line}\n`),
  until: ending.signal,
  onReload: (listener) => void process.on('SIGHUP', listener),
});
