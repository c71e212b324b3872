// What certificate a server shows, before it is known whether to trust it.
import { createHash, X509Certificate } from 'node:crypto';
import { connect } from 'node:tls';
import { toPem } from '#src/lib/self-signed.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';

const LIMIT_MS = 10_000;

export interface Shown {
  readonly pem: string;
  /** SHA-256 in hex. */
  readonly fingerprint: string;
}

/** AppError 'unavailable' when nobody answers there. */
export async function fetchCertificate(url: string, signal: AbortSignal): Promise<Shown> {
  const { hostname, port } = new URL(url);
  const { promise, resolve, reject } = Promise.withResolvers<Shown>();
  // Nothing is sent, and the user decides about the certificate.
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port), rejectUnauthorized: false });
  const limit = limited(LIMIT_MS, signal);
  limit.addEventListener('abort', () => socket.destroy(limit.reason as Error), { once: true });
  socket.once('secureConnect', () => {
    const { raw } = socket.getPeerCertificate();
    const certificate = new X509Certificate(raw);
    resolve({
      pem: toPem(certificate.raw),
      fingerprint: createHash('sha256').update(certificate.raw).digest('hex'),
    });
  });
  socket.once('error', (cause) => {
    reject(new AppError('unavailable', `Cannot reach ${url}: ${messageOf(cause)}`, { cause }));
  });
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}
