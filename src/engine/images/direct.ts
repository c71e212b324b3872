// An image behind a plain URL: its server says in headers where it is and what its hash must be.
import { AppError } from '#src/lib/errors.ts';
import { byteSize, ProgressMeter } from './progress.ts';
import type { UploadPart } from './image-files.ts';
import { type ImageFetcher, shortly } from './sources/fetcher.ts';
import type { TransferOptions } from './sources/remote.ts';

export interface DirectImage {
  readonly url: string;
  /** SHA-256. */
  readonly fingerprint: string;
}

export interface DirectRequest {
  readonly fetcher: ImageFetcher;
  readonly architectures: readonly string[];
  readonly version: string;
  readonly signal: AbortSignal;
}

/** Asks with the headers that let the server choose. */
export async function resolveDirect(url: string, request: DirectRequest): Promise<DirectImage> {
  const { fetcher, architectures, version, signal } = request;
  if (!/^https?:$/u.test(URL.canParse(url) ? new URL(url).protocol : '')) {
    throw new AppError('invalid', `Invalid image URL "${url}"`);
  }
  const headers = { 'LXD-Server-Architectures': architectures.join(', '), 'LXD-Server-Version': version };
  const answer = await fetcher.fetch(url, { method: 'HEAD', headers, signal: shortly(signal) });
  answer.body.destroy();
  const fingerprint = answer.headers['lxd-image-hash'] ?? '';
  const target = answer.headers['lxd-image-url'] ?? '';
  if (fingerprint === '') throw new AppError('invalid', 'Missing LXD-Image-Hash header');
  if (target === '') throw new AppError('invalid', 'Missing LXD-Image-URL header');
  if (!/^[0-9a-f]{64}$/u.test(fingerprint)) throw new AppError('invalid', 'Invalid LXD-Image-Hash header');
  return { url: target, fingerprint };
}

export async function* directParts(
  { url }: DirectImage,
  { fetcher, certificate, signal, progress }: TransferOptions & { fetcher: ImageFetcher; certificate: string },
): AsyncGenerator<UploadPart> {
  yield { name: 'metadata', content: metered() };

  async function* metered(): AsyncGenerator<Buffer> {
    let meter: ProgressMeter | undefined;
    const onTotal = (total: number) => {
      meter = new ProgressMeter(({ percent = 0, bytesPerSecond }) => {
        progress(`${percent}% (${byteSize(bytesPerSecond)}/s)`);
      }, total);
    };
    for await (const chunk of fetcher.download(url, { signal, certificate, onTotal })) {
      meter?.add(chunk.length);
      yield chunk;
    }
  }
}
