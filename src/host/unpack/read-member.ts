// Reads one small file of a tar without unpacking it: the metadata of an image that has just come in.
import { createReadStream } from 'node:fs';
import { text } from 'node:stream/consumers';
import { AppError } from '#src/lib/errors.ts';
import { CommandError } from '../command-error.ts';
import type { Argv, Host } from '../host.ts';
import { detectFormat } from './formats.ts';
import { Sandbox } from './sandbox.ts';
import { tarMembersOf } from './tar-members.ts';
import { withTarStream } from './tar-stream.ts';

interface MemberRequest {
  readonly name: string;
  readonly maxBytes: number;
  readonly signal: AbortSignal;
}

/** The contents; undefined when the archive has no such file. AppError 'invalid' when it is larger than `maxBytes`. */
export async function readMember(
  host: Host,
  path: string,
  { name, maxBytes, signal }: MemberRequest,
): Promise<string | undefined> {
  const format = await detectFormat(path);
  if (format === 'squashfs') return await readSquashfs(host, path, { name, maxBytes, signal });
  if (format === 'tar') return await find(createReadStream(path, { signal }), name, maxBytes); // no program takes part
  const stop = new AbortController();
  using sandbox = await Sandbox.nowhere(host, { fileBytes: 0, signal: AbortSignal.any([signal, stop.signal]) });
  const result = Promise.withResolvers<string | undefined>();
  result.promise.catch(() => {});
  const read = async (stream: AsyncIterable<unknown>): Promise<void> => {
    await find(stream, name, maxBytes).then(result.resolve, result.reject);
    stop.abort(); // the rest does not matter
  };
  // What ends the program that we stopped is no news; but it must be gone.
  await withTarStream(host, { path, format }, { sandbox, read }).catch(result.reject);
  signal.throwIfAborted();
  return await result.promise;
}

async function find(stream: AsyncIterable<unknown>, wanted: string, maxBytes: number): Promise<string | undefined> {
  for await (const { name, size, content } of tarMembersOf(stream)) {
    if (name !== wanted) continue;
    if (size > maxBytes) throw new AppError('invalid', `${wanted} has ${size} bytes`);
    return await text(content);
  }
  return undefined;
}

async function readSquashfs(
  host: Host,
  path: string,
  { name, maxBytes, signal }: MemberRequest,
): Promise<string | undefined> {
  const stop = new AbortController();
  using sandbox = await Sandbox.nowhere(host, { fileBytes: 0, signal: AbortSignal.any([signal, stop.signal]) });
  // By name, so it must be readable to nobody: it is, when seen through nobody's map.
  using image = await host.mounts.openMapped(path, sandbox.ids, { readonly: true });
  const argv: Argv = ['unsquashfs', '-cat', '/proc/self/fd/0', name];
  const program = host.start(sandbox.command(argv), { ...sandbox.options, inputFile: image.path });
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of program.stdout) {
    pieces.push(piece as Buffer);
    bytes += piece.length;
    if (bytes > maxBytes) stop.abort(new AppError('invalid', `${name} has more than ${maxBytes} bytes`));
  }
  try {
    await program.done;
  } catch (error) {
    if (stop.signal.aborted) throw stop.signal.reason;
    if (error instanceof CommandError && error.stderr.includes('no matches for')) return undefined;
    throw error;
  }
  return Buffer.concat(pieces).toString();
}
