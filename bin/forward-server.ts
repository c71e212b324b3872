// The helper that carries the connections of proxy devices; started by the daemon, and running on without it.
import { writeSync } from 'node:fs';
import { flushCompileCache, getCompileCacheDir } from 'node:module';
import { serveForwards } from '#src/host/forwarding/server.ts';

const STDERR = 2;
const [directory = ''] = process.argv.slice(2);
const { NODE_COMPILE_CACHE, WARMED } = process.env;

// It runs for long, and what compiling leaves behind it would keep: it begins again with what is compiled.
if (NODE_COMPILE_CACHE !== undefined && WARMED === undefined && getCompileCacheDir() !== undefined) {
  flushCompileCache();
  process.execve?.(process.execPath, [process.execPath, ...process.execArgv, ...process.argv.slice(1)], {
    NODE_COMPILE_CACHE,
    WARMED: '1',
  });
}
serveForwards({ directory, log: (line) => writeSync(STDERR, line) });
