// The ticket with which another host's driver fetches a guest from the engine of this one; it crosses Nova's message bus.
import { Ajv } from 'ajv';
import { AppError } from '#src/lib/errors.ts';
import type { GuestFile } from '../driver.ts';

export interface Ticket {
  readonly version: 1;
  /** URL of the source's operation. */
  readonly operation: string;
  /** PEM of the source's certificate: no other one is accepted, whoever signed it. */
  readonly certificate: string;
  /** Of the operation's channels; each is good for one connection. */
  readonly secrets: { readonly control: string; readonly fs: string };
  /** LXD's name of it: x86_64. */
  readonly architecture: string;
  /** What of the configuration belongs to the guest rather than to its host. */
  readonly config: Readonly<Record<string, string>>;
  /** Its config drive: path → base64; null: it has none. */
  readonly drive: Readonly<Record<string, string>> | null;
}

/** What the engine noted of the image, and what cloud-init is told. */
const TAKEN_ALONG = /^(image\.[0-9a-zA-Z._-]{1,100}|user\.(meta-data|user-data|vendor-data|network-config))$/;
const MAX_VALUE = 1 << 20;
/** In base64, of one file: what Nova lets users inject is far below. */
const MAX_FILE = 4 << 20;

const secret = { type: 'string', pattern: '^[0-9a-zA-Z._-]{16,512}$' };

const validate = new Ajv({ allowUnionTypes: true }).compile<Ticket>({
  type: 'object',
  required: ['version', 'operation', 'certificate', 'secrets', 'architecture', 'config', 'drive'],
  properties: {
    version: { const: 1 },
    operation: {
      type: 'string',
      maxLength: 512,
      pattern: '^https://[0-9a-zA-Z.:\\[\\]-]+/1\\.0/operations/[0-9a-fA-F-]{36}$',
    },
    certificate: { type: 'string', maxLength: 65_536, pattern: '^-----BEGIN CERTIFICATE-----\\s' },
    secrets: {
      type: 'object',
      required: ['control', 'fs'],
      properties: { control: secret, fs: secret },
      additionalProperties: false,
    },
    architecture: { type: 'string', pattern: '^[0-9a-z_]{1,20}$' },
    config: {
      type: 'object',
      maxProperties: 100,
      propertyNames: { pattern: TAKEN_ALONG.source },
      additionalProperties: { type: 'string', maxLength: MAX_VALUE },
    },
    drive: {
      type: ['object', 'null'],
      maxProperties: 200,
      propertyNames: { pattern: '^(?!.*(^|/)\\.{1,2}(/|$))[0-9a-zA-Z._-]+(/[0-9a-zA-Z._-]+)*$', maxLength: 255 },
      additionalProperties: { type: 'string', maxLength: MAX_FILE, pattern: '^[0-9a-zA-Z+/]*={0,2}$' },
    },
  },
  additionalProperties: false,
});

/** AppError 'invalid' for what is none. The message never shows the value. */
export function readTicket(value: unknown): Ticket {
  if (validate(value)) return value;
  const [error] = validate.errors ?? [];
  throw new AppError('invalid', `not a ticket of this driver:${error?.instancePath ?? ''} ${error?.message ?? ''}`);
}

export function takenAlong(config: Readonly<Record<string, string>>): Ticket['config'] {
  return Object.fromEntries(Object.entries(config).filter(([key]) => TAKEN_ALONG.test(key)));
}

export function packedDrive(files: readonly GuestFile[] | null): Ticket['drive'] {
  if (files === null) return null;
  return Object.fromEntries(files.map(({ path, content }) => [path, Buffer.from(content).toString('base64')]));
}

export function unpackedDrive(drive: Ticket['drive']): readonly GuestFile[] | null {
  if (drive === null) return null;
  return Object.entries(drive).map(([path, content]) => ({ path, content: Buffer.from(content, 'base64') }));
}
