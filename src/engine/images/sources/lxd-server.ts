// Another engine as an image server: public images, private ones with a secret, and images given to it.
import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import { type ImageForm, imageForm } from '../form.ts';
import type { ImageFileSet, UploadPart } from '../image-files.ts';
import { boundaryOf, formParts } from '#src/lib/multipart.ts';
import { byteSize, ProgressMeter } from '../progress.ts';
import { alive, type Fetched, type ImageFetcher, readText, shortly } from './fetcher.ts';
import type { ImageRemote, RemoteImage, TransferOptions } from './remote.ts';

export interface LxdServerOptions {
  readonly server: string;
  readonly certificate: string;
  readonly project: string;
  readonly secret: string;
  readonly fetcher: ImageFetcher;
}

/** Members of the answers that are read; whatever else is there does not matter. */
interface Envelope {
  readonly type?: string;
  readonly error?: string;
  readonly metadata?: Readonly<Record<string, unknown>> | null;
}

export class LxdServer implements ImageRemote {
  readonly #options: LxdServerOptions;

  constructor(options: LxdServerOptions) {
    this.#options = options;
  }

  async find(name: string, signal: AbortSignal): Promise<RemoteImage> {
    const target = this.#options.secret === '' ? await this.#aliasTarget(name, signal) : undefined;
    const found = await this.#get(`/1.0/images/${encodeURIComponent(target ?? name)}`, signal);
    return remoteImage(found);
  }

  async #aliasTarget(name: string, signal: AbortSignal): Promise<string | undefined> {
    try {
      const { target } = await this.#get(`/1.0/images/aliases/${encodeURIComponent(name)}`, signal);
      return typeof target === 'string' ? target : undefined;
    } catch (error) {
      if (kindOf(error) === 'not_found' || kindOf(error) === 'forbidden') return undefined;
      throw error;
    }
  }

  async *parts({ fingerprint, sizeBytes }: RemoteImage, options: TransferOptions): AsyncGenerator<UploadPart> {
    const { fetcher, certificate } = this.#options;
    const url = this.#url(`/1.0/images/${fingerprint}/export`);
    const fetched = await fetcher.fetch(url, { signal: options.signal, certificate });
    if (fetched.status !== 200) throw await refusal(fetched, url);
    const meter = new ProgressMeter(({ percent = 0, bytesPerSecond }) => {
      options.progress(`${percent}% (${byteSize(bytesPerSecond)}/s)`);
    }, sizeBytes);
    const body = counted(alive(fetched.body), meter);
    const boundary = boundaryOf(fetched.headers['content-type'] ?? '');
    try {
      if (boundary === undefined) yield { name: 'metadata', content: body };
      else yield* splitParts(body, boundary);
    } finally {
      fetched.body.destroy();
    }
  }

  /** Gives it an image that it has made a token for, and waits until it is there. */
  async push(files: ImageFileSet, fingerprint: string, { signal, progress }: TransferOptions): Promise<void> {
    const { fetcher, certificate, secret } = this.#options;
    const meter = new ProgressMeter(({ bytes, bytesPerSecond }) =>
      progress(`${byteSize(bytes)} (${byteSize(bytesPerSecond)}/s)`),
    );
    const { contentType, body } = uploadOf(files, fingerprint);
    const answer = await fetcher.fetch(this.#url('/1.0/images', false), {
      method: 'POST',
      headers: {
        'Content-Type': contentType,
        'X-LXD-fingerprint': fingerprint,
        'X-LXD-secret': secret,
        'X-LXD-filename': fingerprint,
      },
      body: Readable.from(counted(body, meter), { objectMode: false }),
      certificate,
      signal,
    });
    const started = await envelopeOf(answer, this.#options.server);
    await this.#wait(started.metadata ?? {}, signal);
  }

  async #wait({ id, metadata }: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<void> {
    const { server, fetcher, certificate } = this.#options;
    const waited = (metadata as { readonly secret?: unknown } | undefined)?.secret;
    const query = new URLSearchParams({ secret: typeof waited === 'string' ? waited : '', timeout: '20' });
    const url = `${trimmed(server)}/1.0/operations/${encodeURIComponent(String(id))}/wait?${query.toString()}`;
    for (;;) {
      const { metadata: operation } = await envelopeOf(await fetcher.fetch(url, { signal, certificate }), url);
      const { status_code: code, err } = operation ?? {};
      if (code === 200) return;
      if (typeof code === 'number' && code > 200) throw new AppError('internal', `Failed operation: ${String(err)}`);
    }
  }

  async #get(path: string, signal: AbortSignal): Promise<Readonly<Record<string, unknown>>> {
    const { fetcher, certificate } = this.#options;
    const url = this.#url(path);
    return (await envelopeOf(await fetcher.fetch(url, { signal: shortly(signal), certificate }), url)).metadata ?? {};
  }

  #url(path: string, withSecret = true): string {
    const { server, project, secret } = this.#options;
    const query = new URLSearchParams({
      ...(project !== '' && project !== 'default' && { project }),
      ...(withSecret && secret !== '' && { secret }),
    }).toString();
    return `${trimmed(server)}${path}${query === '' ? '' : `?${query}`}`;
  }
}

function trimmed(server: string): string {
  return server.replace(/\/+$/u, '');
}

async function envelopeOf(fetched: Fetched, what: string): Promise<Envelope> {
  if (fetched.status >= 300) throw await refusal(fetched, what);
  try {
    return JSON.parse(await readText(fetched.body, what)) as Envelope;
  } catch (error) {
    throw new AppError('unavailable', `The answer of ${what} is not that of an image server: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** The server's own words. */
async function refusal(fetched: Fetched, what: string): Promise<AppError> {
  const text = await readText(fetched.body, what);
  const kind = fetched.status === 404 ? 'not_found' : fetched.status === 403 ? 'forbidden' : 'unavailable';
  try {
    return new AppError(kind, (JSON.parse(text) as Envelope).error ?? `Unable to fetch ${what}: ${fetched.status}`);
  } catch {
    return new AppError(kind, `Unable to fetch ${what}: ${fetched.status}`);
  }
}

function remoteImage(data: Readonly<Record<string, unknown>>): RemoteImage {
  const text = (name: string) => (typeof data[name] === 'string' ? data[name] : '');
  const fingerprint = text('fingerprint');
  if (!/^[0-9a-f]{64}$/u.test(fingerprint))
    throw new AppError('invalid', 'The server tells no fingerprint of the image');
  if (text('type') === 'virtual-machine') {
    throw new AppError('invalid', 'Images of virtual machines are not supported');
  }
  const properties = Object.entries(data['properties'] ?? {}).map(([key, value]) => [key, String(value)]);
  return {
    fingerprint,
    filename: text('filename').split('/').at(-1) ?? '',
    sizeBytes: Number(data['size'] ?? 0) || 0,
    properties: Object.fromEntries(properties) as Record<string, string>,
    createdAt: text('created_at'),
    expiresAt: text('expires_at'),
  };
}

async function* splitParts(body: AsyncIterable<Buffer>, boundary: string): AsyncGenerator<UploadPart> {
  for await (const { name, content } of formParts(body, boundary)) {
    if (name !== 'metadata' && name !== 'rootfs') {
      throw new AppError('invalid', `Invalid multipart image: part "${name}"`);
    }
    yield { name, content };
  }
}

async function* counted(source: AsyncIterable<Buffer>, meter: ProgressMeter): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    meter.add(chunk.length);
    yield chunk;
  }
}

function uploadOf(files: ImageFileSet, fingerprint: string): ImageForm {
  if (files.rootfs === undefined) {
    const body = createReadStream(files.metadata) as AsyncIterable<Buffer>;
    return { contentType: 'application/octet-stream', body };
  }
  return imageForm([
    { field: 'metadata', path: files.metadata, filename: fingerprint },
    { field: 'rootfs', path: files.rootfs, filename: `${fingerprint}.rootfs` },
  ]);
}
