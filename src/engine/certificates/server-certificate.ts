// The server's own certificate, made at the first start and kept: clients pin it.
import { createHash, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import { makeSelfSigned } from '#src/lib/self-signed.ts';

export interface ServerCertificate {
  /** PEM. */
  readonly certificate: string;
  readonly key: string;
  /** SHA-256 of the DER form, in hex. */
  readonly fingerprint: string;
  /** PKI mode: the authority whose clients may come, and which of them may not any more. */
  readonly ca?: string;
  readonly crl?: string;
}

/** Reads server.crt and server.key in `directory`, or makes them. */
export async function loadServerCertificate(
  host: Host,
  directory: string,
  hostname: string,
): Promise<ServerCertificate> {
  const paths = { certificate: join(directory, 'server.crt'), key: join(directory, 'server.key') };
  if (!(await host.exists(paths.certificate)) || !(await host.exists(paths.key))) {
    const made = makeSelfSigned('server', 'root', hostname);
    // The key first: a certificate without its key is made anew at the next start.
    await host.writeFile(paths.key, made.key, { mode: 0o600 });
    await host.writeFile(paths.certificate, made.certificate, { mode: 0o644 });
  }
  const certificate = await host.readFile(paths.certificate);
  const [ca, crl] = await Promise.all([optional(host, directory, 'server.ca'), optional(host, directory, 'ca.crl')]);
  return {
    certificate,
    key: await host.readFile(paths.key),
    fingerprint: fingerprintOf(certificate),
    ...(ca !== undefined && { ca }),
    ...(ca !== undefined && crl !== undefined && { crl }),
  };
}

async function optional(host: Host, directory: string, name: string): Promise<string | undefined> {
  const path = join(directory, name);
  return (await host.exists(path)) ? host.readFile(path) : undefined;
}

/** Of a PEM certificate, as LXD writes it. */
export function fingerprintOf(pem: string): string {
  return createHash('sha256').update(new X509Certificate(pem).raw).digest('hex');
}
