// The ticket with which another host's driver fetches a guest from the engine of this one; it crosses Nova's message bus.
import { Ajv } from 'ajv';
import type { Operation } from '#src/client/wire.ts';
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
  /** Its ephemeral disks; absent: none. */
  readonly ephemerals?: readonly OfferedDisk[];
  /** Its config drive: path → base64; null: it has none. */
  readonly drive: Readonly<Record<string, string>> | null;
}

/** A volume that the engine offers as it offers the guest. */
export interface OfferedDisk {
  readonly index: number;
  readonly operation: string;
  readonly secrets: Ticket['secrets'];
  /** Its size, and the ids of its files where they are not those of the inside. */
  readonly config: Readonly<Record<string, string>>;
}

/** What the engine noted of the image, and what cloud-init is told. */
const TAKEN_ALONG = /^(image\.[0-9a-zA-Z._-]{1,100}|user\.(meta-data|user-data|vendor-data|network-config))$/;
const MAX_VALUE = 1 << 20;
/** In base64, of one file: what Nova lets users inject is far below. */
const MAX_FILE = 4 << 20;

const OF_DISK = /^(size|volatile\.idmap\.(last|next))$/;
const MAX_DISKS = 100;

const secret = { type: 'string', pattern: '^[0-9a-zA-Z._-]{16,512}$' };

const operation = {
  type: 'string',
  maxLength: 512,
  pattern: '^https://[0-9a-zA-Z.:\\[\\]-]+/1\\.0/operations/[0-9a-fA-F-]{36}$',
};

const secrets = {
  type: 'object',
  required: ['control', 'fs'],
  properties: { control: secret, fs: secret },
  additionalProperties: false,
};

const ephemerals = {
  type: 'array',
  maxItems: MAX_DISKS,
  items: {
    type: 'object',
    required: ['index', 'operation', 'secrets', 'config'],
    properties: {
      index: { type: 'integer', minimum: 0, maximum: MAX_DISKS },
      operation,
      secrets,
      config: {
        type: 'object',
        propertyNames: { pattern: OF_DISK.source },
        additionalProperties: { type: 'string', maxLength: MAX_VALUE },
      },
    },
    additionalProperties: false,
  },
};

const validate = new Ajv({ allowUnionTypes: true }).compile<Ticket>({
  type: 'object',
  required: ['version', 'operation', 'certificate', 'secrets', 'architecture', 'config', 'drive'],
  properties: {
    version: { const: 1 },
    operation,
    certificate: { type: 'string', maxLength: 65_536, pattern: '^-----BEGIN CERTIFICATE-----\\s' },
    secrets,
    ephemerals,
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

export function takenAlongOfDisk(config: Readonly<Record<string, string>>): OfferedDisk['config'] {
  return Object.fromEntries(Object.entries(config).filter(([key]) => OF_DISK.test(key)));
}

export function packedDrive(files: readonly GuestFile[] | null): Ticket['drive'] {
  if (files === null) return null;
  return Object.fromEntries(files.map(({ path, content }) => [path, Buffer.from(content).toString('base64')]));
}

export function unpackedDrive(drive: Ticket['drive']): readonly GuestFile[] | null {
  if (drive === null) return null;
  return Object.entries(drive).map(([path, content]) => ({ path, content: Buffer.from(content, 'base64') }));
}

/** Of an operation that offers something. */
export function secretsOf({ metadata }: Operation): Ticket['secrets'] {
  const { control, fs } = metadata ?? {};
  if (typeof control === 'string' && typeof fs === 'string') return { control, fs };
  throw new AppError('internal', 'the engine offers a guest without the secrets of its channels');
}
