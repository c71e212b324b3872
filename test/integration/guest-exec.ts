// Commands in instances, through an engine's API.
import { PassThrough, Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { EngineClient } from '#src/client/client.ts';
import { timeFactor } from '#test/time-factor.ts';

export interface GuestCommand {
  readonly code: number;
  readonly stdout: string;
}

export async function execIn(
  client: EngineClient,
  instance: string,
  command: readonly string[],
  signal = AbortSignal.timeout(60_000 * timeFactor()),
): Promise<GuestCommand> {
  const stdout = new PassThrough();
  const printed = text(stdout);
  const request = { command, environment: {}, interactive: false, user: 0, group: 0, cwd: '/' };
  const streams = { stdin: Readable.from([]), stdout, stderr: new Writable({ write: (_c, _e, done) => done() }) };
  const onStart = () => ({ [Symbol.dispose]() {} });
  const code = await client.sessions.exec(`/1.0/instances/${instance}`, request, { streams, onStart, signal });
  stdout.end();
  return { code, stdout: await printed };
}
