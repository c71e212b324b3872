// /1.0/instances/NAME/files
import { once } from 'node:events';
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ByteRange, FoundEntry } from '#src/engine/instances/files.ts';
import { ContainedError } from '#src/host/contained/walk.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ApiApp } from './app.ts';
import { readAll } from './bodies.ts';
import { byteRange } from './byte-range.ts';
import { ApiError, sync } from './envelope.ts';
import { fileHeaders, newEntryOf } from './file-headers.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { pathParams } from './schema.ts';
import { Type } from './type.ts';

const Params = pathParams('name');
const Query = Type.Object({
  path: Type.Optional(Type.String({ description: 'Absolute, as the instance sees it' })),
  project: Type.Optional(Type.String()),
});
const MAX_TARGET_BYTES = 4096;

export const FILE_EXTENSIONS = [
  'directory_manipulation',
  'file_delete',
  'file_append',
  'file_symlinks',
  'file_get_symlink',
  'instance_file_head',
] as const;

export function registerFileRoutes(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const path = `/1.0/${prefix}/:name/files`;
  registerReading(app, path, deps);
  registerWriting(app, path, deps);
}

function registerReading(app: ApiApp, url: string, deps: InstanceDeps): void {
  const { files } = deps.instances;

  app.get(
    url,
    { schema: { summary: 'Get a file, a directory or a link', params: Params, querystring: Query } },
    async (request, reply) => {
      const path = pathOf(request.query);
      const info = instanceOf(request, deps);
      await translated(() => files.read(info, path, (entry) => send(request, reply, { path, entry })));
      return reply;
    },
  );

  app.head(
    url,
    { schema: { summary: 'Look at a file, a directory or a link', params: Params, querystring: Query } },
    async (request, reply) => {
      const info = instanceOf(request, deps);
      const found = await translated(() => files.attributes(info, pathOf(request.query)));
      const type = found.kind === 'directory' ? 'application/json' : 'application/octet-stream';
      void reply.headers({ ...fileHeaders(found), 'content-type': type });
      if (found.kind === 'file') void reply.header('content-length', found.sizeBytes);
      return reply.send();
    },
  );
}

function registerWriting(app: ApiApp, url: string, deps: InstanceDeps): void {
  const { files } = deps.instances;

  app.post(
    url,
    {
      schema: { summary: 'Make or write a file, a directory or a link', params: Params, querystring: Query },
      config: { rawBody: 'stream' },
    },
    async (request) => {
      const path = pathOf(request.query);
      const info = instanceOf(request, deps);
      const entry = newEntryOf(request.headers);
      const body = (request.body ?? Readable.from([])) as Readable;
      const content = entry.kind === 'file' ? body : (await readAll(body, MAX_TARGET_BYTES)).toString();
      await translated(() => files.write(info, { ...entry, path, content }));
      return sync();
    },
  );

  app.delete(
    url,
    { schema: { summary: 'Remove a file or an empty directory', params: Params, querystring: Query } },
    async (request) => {
      const info = instanceOf(request, deps);
      await translated(() => files.remove(info, pathOf(request.query)));
      return sync();
    },
  );
}

function pathOf({ path = '' }: { readonly path?: string }): string {
  if (path === '') throw new ApiError(400, 'Missing path argument');
  return posix.resolve('/', path);
}

/** Resolves when the answer is out, or nobody wants it any more. */
async function send(
  request: FastifyRequest,
  reply: FastifyReply,
  { path, entry }: { readonly path: string; readonly entry: FoundEntry },
): Promise<void> {
  void reply.headers(fileHeaders(entry.attributes));
  if (entry.kind === 'directory') {
    void reply.send(sync(entry.names));
    return;
  }
  const name = posix.basename(path);
  void reply.headers({
    'content-type': 'application/octet-stream',
    'content-disposition': `inline;filename=${encodeURI(name)}`,
  });
  if (entry.kind === 'symlink') void reply.send(Buffer.from(entry.target));
  else await sendFile(request, reply, entry);
}

async function sendFile(
  request: FastifyRequest,
  reply: FastifyReply,
  entry: Extract<FoundEntry, { kind: 'file' }>,
): Promise<void> {
  const { sizeBytes } = entry.attributes;
  const range = byteRange(request.headers.range, sizeBytes);
  void reply.header('accept-ranges', 'bytes');
  if (range === 'none') {
    void reply.code(416).header('content-range', `bytes */${sizeBytes}`).send();
    return;
  }
  if (reply.raw.destroyed) return; // it would never close again
  const over = once(reply.raw, 'close');
  if (range !== 'all') {
    void reply.code(206).header('content-range', `bytes ${range.start}-${range.end}/${sizeBytes}`);
    sendBytes(reply, entry, range);
  } else if (sizeBytes === 0) {
    void reply.send(entry.content()); // files of /proc say 0 and have something to say
  } else sendBytes(reply, entry, { start: 0, end: sizeBytes - 1 });
  await over;
}

/** A file that has become shorter meanwhile ends the connection: nobody waits for the rest, or takes it for the whole. */
function sendBytes(reply: FastifyReply, entry: Extract<FoundEntry, { kind: 'file' }>, range: ByteRange): void {
  const length = range.end - range.start + 1;
  const content = entry.content(range);
  content.once('end', () => {
    if (content.bytesRead < length) reply.raw.destroy();
  });
  void reply.header('content-length', length).send(content);
}

/** LXD's statuses for what the kernel says. */
async function translated<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ContainedError) {
      if (error.kind === 'not_found') throw new ApiError(404, 'Not Found', { cause: error });
      if (error.code === 'EACCES' || error.code === 'EPERM') throw new ApiError(403, error.message, { cause: error });
      throw new ApiError(500, error.message, { cause: error });
    }
    if (error instanceof AppError || error instanceof ApiError) throw error;
    throw new ApiError(500, 'The file could not be transferred', { cause: error });
  }
}
