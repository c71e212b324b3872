// Who is at the other end: any peer of the unix socket, or the holder of a trusted certificate.
import { createHash, X509Certificate } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import type { EngineDatabase } from '#src/engine/db/database.ts';
import type { CertificateRecord } from '#src/engine/db/records.ts';
import type { Requestor } from '#src/engine/events/requestor.ts';
import type { Caller } from './app.ts';
import { connectionKey } from './tls-listener.ts';

/** Node cannot ask a unix socket for its peer's user; the file's mode decides who may connect. */
const UNIX: Caller = { requestor: { username: '', protocol: 'unix', address: '@' }, trusted: true };

/** DER of the client's certificate; undefined when it sent none. */
export function peerCertificate({ socket }: IncomingMessage): Buffer | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  const { raw } = socket.getPeerCertificate(false) as { readonly raw?: Buffer };
  return raw;
}

export interface TrustOptions {
  /** PKI mode: only what the authority has signed is looked at. */
  readonly isPki?: boolean;
  /** core.trust_ca_certificates: what the authority has signed is trusted. */
  readonly trustsAuthority?: () => boolean;
  /** Where clients come from that a proxy speaks for. */
  readonly proxied?: ReadonlyMap<string, string>;
}

/** Looked up per request: a certificate that was removed is not trusted any more on a connection that stays. */
export function callerFrom(
  database: Pick<EngineDatabase, 'certificates'>,
  { isPki = false, trustsAuthority, proxied }: TrustOptions = {},
): (request: IncomingMessage) => Caller {
  const seen = new WeakMap<object, SeenCertificate>();
  const certificateOf = (request: IncomingMessage) => {
    let certificate = seen.get(request.socket);
    if (!certificate) {
      certificate = readCertificate(peerCertificate(request));
      seen.set(request.socket, certificate);
    }
    return certificate;
  };
  return (request) => {
    const { socket } = request;
    if (!(socket instanceof TLSSocket)) return UNIX;
    const certificate = certificateOf(request);
    const { fingerprint } = certificate;
    const key = connectionKey(socket);
    const requestor = { username: fingerprint, protocol: 'tls', address: proxied?.get(key) ?? key } as const;
    if (!isValid(certificate) || (isPki && !socket.authorized))
      return { requestor, trusted: false, hasUsableKey: false };
    const record = database.certificates.find(fingerprint);
    return record ? holderOf(record, requestor) : { requestor, trusted: isPki && trustsAuthority?.() === true };
  };
}

interface SeenCertificate {
  /** Empty: none. */
  readonly fingerprint: string;
  readonly from: number;
  readonly to: number;
}

function readCertificate(raw: Buffer | undefined): SeenCertificate {
  if (!raw) return { fingerprint: '', from: 0, to: 0 };
  const { validFromDate, validToDate } = new X509Certificate(raw);
  const fingerprint = createHash('sha256').update(raw).digest('hex');
  return { fingerprint, from: validFromDate.getTime(), to: validToDate.getTime() };
}

function isValid({ fingerprint, from, to }: SeenCertificate): boolean {
  const now = Date.now();
  return fingerprint !== '' && from <= now && now <= to;
}

function holderOf({ type, restricted, projects }: CertificateRecord, requestor: Requestor): Caller {
  return {
    requestor,
    trusted: type === 'client',
    ...(type === 'metrics' && { readsMetrics: true }),
    ...(restricted && { projects: new Set(projects) }),
  };
}
