// Tokens with which a new client gets itself trusted: JSON in base64, as LXD makes and reads them.
import { AppError } from '#src/lib/errors.ts';

export interface Token {
  readonly name: string;
  readonly secret: string;
  /** Of the server's certificate. */
  readonly fingerprint: string;
  readonly addresses: readonly string[];
  readonly expiresAt?: string | undefined;
}

export function tokenText({ name, fingerprint, addresses, secret, expiresAt }: Token): string {
  const content = { client_name: name, fingerprint, addresses, secret, expires_at: expiresAt };
  return Buffer.from(JSON.stringify(content)).toString('base64');
}

/** Undefined when it is not a token at all. AppError 'invalid' for one that has run out. */
export function readToken(text: string): Token | undefined {
  const content = parsed(Buffer.from(text, 'base64').toString());
  const { client_name: name, fingerprint, addresses, secret, expires_at: expiresAt } = content;
  if (typeof fingerprint !== 'string' || typeof secret !== 'string' || !Array.isArray(addresses)) return undefined;
  const expires = typeof expiresAt === 'string' ? Date.parse(expiresAt) : 0;
  if (expires > 0 && expires < Date.now()) throw new AppError('invalid', 'The provided token is expired');
  return { name: String(name), fingerprint, secret, addresses: addresses.map(String) };
}

function parsed(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
  } catch {
    return {};
  }
}
