// The body of POST /1.0/images: a tarball, a form with metadata and root file system, or JSON; streamed to disk.
import { once } from 'node:events';
import type { IncomingHttpHeaders } from 'node:http';
import { Readable } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import type { ImageFiles, StagedImage, UploadPart } from '#src/engine/images/image-files.ts';
import type { UploadedImage } from '#src/engine/images/new-image.ts';
import { boundaryOf, formParts } from '#src/lib/multipart.ts';
import { AppError } from '#src/lib/errors.ts';
import { parseJson, readAll } from './bodies.ts';

export type ReceivedImage =
  | { readonly kind: 'upload'; readonly staged: StagedImage; readonly upload: UploadedImage }
  /** Where to get it. */
  | { readonly kind: 'source'; readonly body: unknown };

export async function receiveImage(
  request: FastifyRequest,
  project: string,
  { files, maxBytes }: { readonly files: ImageFiles; readonly maxBytes: number | undefined },
): Promise<ReceivedImage> {
  const body = request.body instanceof Readable ? request.body : Readable.from([]);
  const type = request.headers['content-type'] ?? '';
  const boundary = boundaryOf(type);
  if (boundary === undefined && (await isJson(body, type))) {
    return { kind: 'source', body: parseJson((await readAll(body)).toString('utf8')) };
  }
  const upload = describe(request.headers, project);
  const form = { filename: '' };
  const content = boundary === undefined ? wholeBody(body) : parts(body, boundary, form);
  const staged = await files.stage(content, maxBytes);
  return { kind: 'upload', staged, upload: form.filename === '' ? upload : { ...upload, filename: form.filename } };
}

/** By its type, or by its first byte when the client says nothing of use: no archive begins like an object. */
async function isJson(body: Readable, type: string): Promise<boolean> {
  if (type.startsWith('application/json')) return true;
  if (type.startsWith('application/octet-stream')) return false;
  if (body.readableLength === 0 && !body.readableEnded) await Promise.race([once(body, 'readable'), once(body, 'end')]);
  const head = body.read(1) as Buffer | null;
  if (head === null) return false;
  body.unshift(head);
  return head.toString() === '{';
}

async function* wholeBody(content: Readable): AsyncGenerator<UploadPart> {
  yield { name: 'metadata', content };
}

/** The root file system's name is the image's. */
async function* parts(body: Readable, boundary: string, form: { filename: string }): AsyncGenerator<UploadPart> {
  let seen = 0;
  for await (const { name, filename, content } of formParts(body, boundary)) {
    const expected = seen === 0 ? ['metadata'] : ['rootfs', 'rootfs.img'];
    if (seen > 1 || !expected.includes(name)) throw new AppError('invalid', `Invalid multipart image: part "${name}"`);
    if (name === 'rootfs.img') throw new AppError('invalid', 'Images of virtual machines are not supported');
    if (seen > 0) form.filename = filename;
    seen++;
    yield { name: seen === 1 ? 'metadata' : 'rootfs', content };
  }
  if (seen !== 2) throw new AppError('invalid', 'Invalid multipart image: metadata and rootfs are needed');
}

/** LXD's headers and Incus' mean the same. */
function header(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[`x-lxd-${name}`] ?? headers[`x-incus-${name}`];
  return Array.isArray(value) ? value[0] : value;
}

function describe(headers: IncomingHttpHeaders, project: string): UploadedImage {
  const isPublic = ['1', 'true', 'yes', 'on'].includes(header(headers, 'public')?.toLowerCase() ?? '');
  const profiles = header(headers, 'profiles');
  const fingerprint = header(headers, 'fingerprint');
  const aliases = new URLSearchParams(header(headers, 'aliases') ?? '').getAll('alias');
  return {
    project,
    filename: filenameOf(header(headers, 'filename') ?? ''),
    isPublic,
    autoUpdate: false,
    properties: Object.fromEntries(new URLSearchParams(header(headers, 'properties') ?? '')),
    aliases: aliases.map((name) => ({ name, description: '' })),
    ...(profiles !== undefined && { profiles: new URLSearchParams(profiles).getAll('profile') }),
    ...(fingerprint !== undefined && fingerprint !== '' && { fingerprint }),
  };
}

/** Only shown and offered to clients; never a path of ours. */
function filenameOf(text: string): string {
  return text.slice(text.lastIndexOf('/') + 1);
}
