// Downloads: written to new files, which go away when the download fails, or to standard output.
import { createWriteStream } from 'node:fs';
import { rm, stat } from 'node:fs/promises';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Cli } from './cli.ts';
import { formatBytes } from './format.ts';

const SHOW_EVERY_MS = 200;

/** Never over a file that is there. `-` is standard output. */
export async function saveNew(cli: Cli, content: Readable, target: string): Promise<void> {
  if (target === '-') return pipeline(content, cli.terminal.streams.stdout, { end: false });
  try {
    await pipeline(content, counted(cli), createWriteStream(target, { flags: 'wx', mode: 0o600 }));
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) await rm(target, { force: true });
    throw error;
  } finally {
    cli.endProgress();
  }
}

/** A directory that is there. */
export async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (status) => status.isDirectory(),
    () => false,
  );
}

/** Passes everything on and tells how much it was. */
export function counted(cli: Cli): Transform {
  let bytes = 0;
  let shown = Date.now();
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      if (Date.now() - shown >= SHOW_EVERY_MS) {
        shown = Date.now();
        cli.showProgress(formatBytes(bytes));
      }
      done(null, chunk);
    },
  });
}
