// The trust store: certificates of clients, the trust password, and tokens for new clients.
import { randomBytes, scrypt, timingSafeEqual, X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';
import { AppError } from '#src/lib/errors.ts';
import { aborted } from '#src/lib/wait.ts';
import type { EngineContext } from '../context.ts';
import { type CertificateRecord, ZERO_TIME } from '../db/records.ts';
import type { OperationRegistry } from '../operations/operations.ts';
import { toPem } from '#src/lib/self-signed.ts';
import { fingerprintOf } from './server-certificate.ts';

const derive = promisify<string, Buffer, number, Buffer>(scrypt);
const SALT_BYTES = 32;
const HASH_BYTES = 64;
const TOKEN = 'Waiting for the certificate of a new client';

type Context = Pick<EngineContext, 'database' | 'events'> & { readonly operations: OperationRegistry };

export interface NewCertificate {
  readonly name: string;
  readonly type: string;
  /** base64 of the DER form. */
  readonly certificate: string;
  readonly restricted: boolean;
  readonly projects: readonly string[];
}

export type CertificateChanges = Partial<Pick<CertificateRecord, 'name' | 'restricted' | 'projects' | 'certificate'>>;

/** What a token operation shows; `lxc config trust add` makes the token's text of it. */
export interface TokenRequest {
  readonly name: string;
  readonly restricted: boolean;
  readonly projects: readonly string[];
  readonly fingerprint: string;
  readonly addresses: readonly string[];
  /** undefined: never. */
  readonly expiresAt: Date | undefined;
}

export class Certificates {
  readonly #context: Context;

  constructor(context: Context) {
    this.#context = context;
  }

  list(): readonly CertificateRecord[] {
    return this.#context.database.certificates.list();
  }

  get(prefix: string): CertificateRecord {
    return this.#context.database.certificates.get(prefix);
  }

  /** Returns the record; AppError 'conflict' when it is trusted already. */
  add(request: NewCertificate): CertificateRecord {
    const { database, events } = this.#context;
    const type = certificateType(request.type);
    const certificate = pemOf(request.certificate);
    checkUsable(certificate);
    const fingerprint = fingerprintOf(certificate);
    this.#checkProjects(request.projects);
    if (database.certificates.find(fingerprint)) throw new AppError('conflict', 'Certificate already in trust store');
    const { name, restricted, projects } = request;
    const record = { fingerprint, type, name, certificate, restricted, projects };
    database.certificates.create(record);
    events.lifecycle({ action: 'certificate-created', source: `/1.0/certificates/${fingerprint}` });
    return record;
  }

  /** `certificate`: PEM or base64 of another one that takes its place. */
  update(record: CertificateRecord, { certificate, ...changes }: CertificateChanges): void {
    const { database, events } = this.#context;
    const pem = certificate === undefined || certificate === '' ? record.certificate : pemOf(certificate);
    if (pem !== record.certificate) checkUsable(pem);
    const next = { ...record, ...changes, certificate: pem, fingerprint: fingerprintOf(pem) };
    this.#checkProjects(next.projects);
    database.certificates.update(record.fingerprint, next);
    events.lifecycle({ action: 'certificate-updated', source: `/1.0/certificates/${record.fingerprint}` });
  }

  delete(prefix: string): void {
    const { database, events } = this.#context;
    const { fingerprint } = this.get(prefix);
    database.certificates.delete(fingerprint);
    events.lifecycle({ action: 'certificate-deleted', source: `/1.0/certificates/${fingerprint}` });
  }

  /** Starts a token operation; it ends by its use or by DELETE. */
  startToken(request: TokenRequest): string {
    const { fingerprint, addresses, name, restricted, projects, expiresAt } = request;
    const secret = randomBytes(32).toString('hex');
    const metadata = {
      secret,
      fingerprint,
      addresses,
      expiresAt: expiresAt?.toISOString() ?? ZERO_TIME,
      request: { name, type: 'client', restricted, projects, certificate: '', password: '', token: true },
    };
    return this.#context.operations.start(
      { class: 'token', description: TOKEN, resources: {}, mayCancel: true, metadata },
      ({ signal }) => aborted(signal),
    );
  }

  /** What the holder of a token's secret was promised; a token serves once, and one that has expired ends unused. */
  useToken(secret: string): Pick<NewCertificate, 'name' | 'restricted' | 'projects'> | undefined {
    if (secret === '') return undefined;
    const metadata = this.#context.operations.useToken(TOKEN, secret)?.metadata;
    const expiresAt = String(metadata?.['expiresAt']);
    if (expiresAt !== ZERO_TIME && Date.parse(expiresAt) <= Date.now()) return undefined;
    return metadata?.['request'] as Pick<NewCertificate, 'name' | 'restricted' | 'projects'> | undefined;
  }

  #checkProjects(projects: readonly string[]): void {
    const missing = projects.find((project) => !this.#context.database.projects.find(project));
    if (missing !== undefined) throw new AppError('invalid', `Failed loading project "${missing}": Project not found`);
  }
}

function certificateType(type: string): CertificateRecord['type'] {
  if (type === 'client' || type === 'metrics') return type;
  throw new AppError('invalid', 'Invalid certificate type');
}

const PEM = /-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----/u;

function pemOf(text: string): string {
  const compact = (PEM.exec(text)?.[1] ?? text).replaceAll(/\s/gu, '');
  try {
    return toPem(new X509Certificate(Buffer.from(compact, 'base64')).raw);
  } catch (error) {
    throw new AppError('invalid', 'Invalid certificate: not base64 of a DER certificate', { cause: error });
  }
}

const MIN_RSA_BITS = 2048;

/** AppError 'invalid' with LXD's text for one that would never be trusted. */
function checkUsable(pem: string): void {
  const { validFromDate, validToDate, publicKey } = new X509Certificate(pem);
  const now = Date.now();
  if (now < validFromDate.getTime()) throw new AppError('invalid', "The provided certificate isn't valid yet");
  if (now > validToDate.getTime()) throw new AppError('invalid', 'The provided certificate is expired');
  const bits = publicKey.asymmetricKeyDetails?.modulusLength;
  if (publicKey.asymmetricKeyType === 'rsa' && bits !== undefined && bits < MIN_RSA_BITS) {
    throw new AppError('invalid', `RSA key is too weak (minimum of ${MIN_RSA_BITS}bit)`);
  }
}

/** As LXD stores it: salt and scrypt hash in hex. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  return Buffer.concat([salt, await derive(password, salt, HASH_BYTES)]).toString('hex');
}

/** In constant time. */
export async function isPassword(stored: string, password: string): Promise<boolean> {
  const bytes = Buffer.from(stored, 'hex');
  if (bytes.length !== SALT_BYTES + HASH_BYTES) return false;
  const hash = await derive(password, bytes.subarray(0, SALT_BYTES), HASH_BYTES);
  return timingSafeEqual(hash, bytes.subarray(SALT_BYTES));
}
