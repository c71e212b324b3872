// Self-signed certificates: what a server shows, and what a client is known by.
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { bits, boolean, der, integer, octets, oid, sequence, set, tagged, text, time } from './der.ts';

export interface SelfSigned {
  /** PEM. */
  readonly certificate: string;
  readonly key: string;
}

const OID = {
  ecdsaWithSha384: '1.2.840.10045.4.3.3',
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  keyUsage: '2.5.29.15',
  basicConstraints: '2.5.29.19',
  subjectAltName: '2.5.29.17',
  extendedKeyUsage: '2.5.29.37',
} as const;

const PURPOSE = { server: '1.3.6.1.5.5.7.3.1', client: '1.3.6.1.5.5.7.3.2' } as const;
const VALID_YEARS = 10;

/** Of an elliptic curve; `user` and `hostname` are its name. */
export function makeSelfSigned(purpose: keyof typeof PURPOSE, user: string, hostname: string): SelfSigned {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'secp384r1' });
  const algorithm = sequence(oid(OID.ecdsaWithSha384));
  const name = sequence(
    set(sequence(oid(OID.organization), text('Lightervisor'))),
    set(sequence(oid(OID.commonName), text(`${user}@${hostname}`.slice(0, 64)))),
  );
  const start = new Date(Date.now() - 60_000);
  const end = new Date(start);
  end.setFullYear(end.getFullYear() + VALID_YEARS);
  const serial = randomBytes(16);
  serial[0] = (serial[0] ?? 0) & 0x7f || 1;
  const body = sequence(
    tagged(0, integer(Buffer.from([2]))),
    integer(serial),
    algorithm,
    name,
    sequence(time(start), time(end)),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    tagged(3, extensions(PURPOSE[purpose], hostname)),
  );
  const certificate = sequence(body, algorithm, bits(sign('sha384', body, privateKey)));
  return { certificate: toPem(certificate), key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

function extensions(purpose: string, hostname: string): Buffer {
  const alternatives = sequence(
    der(0x82, Buffer.from(hostname)),
    der(0x87, Buffer.from([127, 0, 0, 1])),
    der(0x87, Buffer.from([...Array.from({ length: 15 }, () => 0), 1])),
  );
  const critical = boolean(true);
  // Digital signature and key encipherment, three bits unused.
  const usage = der(0x03, Buffer.from([5, 0xa0]));
  return sequence(
    sequence(oid(OID.keyUsage), critical, octets(usage)),
    sequence(oid(OID.extendedKeyUsage), octets(sequence(oid(purpose)))),
    sequence(oid(OID.basicConstraints), critical, octets(sequence())),
    sequence(oid(OID.subjectAltName), octets(alternatives)),
  );
}

/** PEM of a DER certificate. */
export function toPem(certificate: Buffer): string {
  const lines = certificate.toString('base64').match(/.{1,64}/gu) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}
