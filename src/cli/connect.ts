// The way to a remote: its address, its certificate and ours.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import type { Endpoint } from '#src/client/transport.ts';
import { AppError } from '#src/lib/errors.ts';
import { makeSelfSigned, type SelfSigned } from '#src/lib/self-signed.ts';
import type { Remotes } from './remotes.ts';

/** AppError 'unsupported' for a server that has images only. */
export async function endpointOf(remotes: Remotes, name: string, socketPath: string): Promise<Endpoint> {
  const { addr, protocol } = remotes.get(name);
  if (protocol === 'simplestreams') {
    throw new AppError(
      'unsupported',
      `The remote "${name}" is an image server: it takes nothing but requests for images`,
    );
  }
  if (addr.startsWith('unix:')) {
    const path = addr.slice('unix:'.length).replace(/^\/\/(?=\/|$)/, '');
    return { kind: 'unix', socketPath: path === '' ? socketPath : path };
  }
  const { certificate, key } = await clientCertificate(remotes.directory);
  const server = await optional(remotes.certificatePath(name));
  return {
    kind: 'https',
    url: addr,
    clientCertificate: certificate,
    clientKey: key,
    ...(server !== undefined && { serverCertificate: server }),
  };
}

/** Ours, made at the first need. */
export async function clientCertificate(directory: string): Promise<SelfSigned> {
  const paths = { certificate: join(directory, 'client.crt'), key: join(directory, 'client.key') };
  const [certificate, key] = await Promise.all([optional(paths.certificate), optional(paths.key)]);
  if (certificate !== undefined && key !== undefined) return { certificate, key };
  const made = makeSelfSigned('client', userInfo().username, hostname());
  await mkdir(directory, { recursive: true, mode: 0o750 });
  // The key first: a certificate without its key is made anew.
  await writeFile(paths.key, made.key, { mode: 0o600 });
  await writeFile(paths.certificate, made.certificate, { mode: 0o644 });
  return made;
}

async function optional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
