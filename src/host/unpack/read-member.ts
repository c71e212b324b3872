// Reads small files of a tar without unpacking it: the metadata of an image that has just come in.
import { createReadStream } from 'node:fs';
import { text } from 'node:stream/consumers';
import { AppError, asError } from '#src/lib/errors.ts';
import { CommandError } from '../command-error.ts';
import type { Argv, Host } from '../host.ts';
import { detectFormat } from './formats.ts';
import { Sandbox } from './sandbox.ts';
import { tarMembersOf, TRUNCATED } from './tar-members.ts';
import { TarStreamCheck, withTarStream } from './tar-stream.ts';

/** As much as any image may unpack to: what is searched for is not behind more than that. */
const SEARCH_LIMITS = { maxBytes: 64 * 2 ** 30, maxEntries: 0 };

export interface MembersRequest {
  readonly names: ReadonlySet<string>;
  /** Of each. */
  readonly maxBytes: number;
  /** Of all. Absent: nobody counts. */
  readonly maxTotalBytes?: number;
  readonly signal: AbortSignal;
}

type MemberRequest = Pick<MembersRequest, 'maxBytes' | 'signal'> & { readonly name: string };

/** The contents; undefined when the archive has no such file. AppError 'invalid' when it is larger than `maxBytes`. */
export async function readMember(
  host: Host,
  path: string,
  { name, maxBytes, signal }: MemberRequest,
): Promise<string | undefined> {
  return (await readMembers(host, path, { names: new Set([name]), maxBytes, signal })).get(name);
}

/** In one go. Those that the archive does not have are missing in the answer; of those that it has twice it is the first. */
export async function readMembers(
  host: Host,
  path: string,
  request: MembersRequest,
): Promise<ReadonlyMap<string, string>> {
  const { signal } = request;
  const format = await detectFormat(path);
  if (format === 'squashfs') return await readFromSquashfs(host, path, request);
  if (format === 'tar') return await find(createReadStream(path, { signal }), request); // no program takes part
  const stop = new AbortController();
  let truncated: Error | undefined;
  using sandbox = await Sandbox.nowhere(host, { fileBytes: 0, signal: AbortSignal.any([signal, stop.signal]) });
  const result = Promise.withResolvers<ReadonlyMap<string, string>>();
  result.promise.catch(() => {});
  const read = async (stream: AsyncIterable<unknown>): Promise<void> => {
    const failure = await find(stream, request).then(result.resolve, asError);
    if (failure?.message === TRUNCATED) {
      truncated = failure; // the program has ended, and may say why
      return;
    }
    if (failure) result.reject(failure);
    stop.abort(); // the rest does not matter
  };
  // What ends the program that we stopped is no news; but it must be gone.
  await withTarStream(host, { path, format }, { sandbox, read }).catch(result.reject);
  if (truncated) result.reject(truncated);
  signal.throwIfAborted();
  return await result.promise;
}

async function find(stream: AsyncIterable<unknown>, request: MembersRequest): Promise<ReadonlyMap<string, string>> {
  const { names, maxBytes, maxTotalBytes = Number.POSITIVE_INFINITY } = request;
  const found = new Map<string, string>();
  let totalBytes = 0;
  for await (const { name, size, content } of tarMembersOf(new TarStreamCheck(SEARCH_LIMITS).pass(stream))) {
    if (!names.has(name) || found.has(name)) continue;
    totalBytes += size;
    if (size > maxBytes || totalBytes > maxTotalBytes) throw new AppError('invalid', `${name} has ${size} bytes`);
    found.set(name, await text(content));
    if (found.size === names.size) break;
  }
  return found;
}

async function readFromSquashfs(
  host: Host,
  path: string,
  { names, ...request }: MembersRequest,
): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  for (const name of names) {
    const content = await readSquashfs(host, path, { ...request, name });
    if (content !== undefined) found.set(name, content);
  }
  return found;
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
