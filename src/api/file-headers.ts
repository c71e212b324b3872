// Headers of the files API, in LXD's and in Incus' names: either is read, both are sent.
import type { IncomingHttpHeaders } from 'node:http';
import type { NewEntry } from '#src/engine/instances/files.ts';
import type { Attributes } from '#src/host/contained/attributes.ts';
import { ApiError } from './envelope.ts';

const MAX_ID = 2 ** 32 - 2;
const PERMISSIONS = 0o777;

export function fileHeaders({ kind, uid, gid, mode, modified }: Attributes): Readonly<Record<string, string>> {
  const values = {
    uid: String(uid),
    gid: String(gid),
    mode: (mode & PERMISSIONS).toString(8).padStart(4, '0'),
    modified: modified
      .toISOString()
      .replace('T', ' ')
      .replace(/\.\d+Z$/, ' +0000 UTC'),
    type: kind,
  };
  const both = Object.entries(values).flatMap(([name, value]) => [
    [`x-lxd-${name}`, value],
    [`x-incus-${name}`, value],
  ]);
  return Object.fromEntries(both);
}

export function newEntryOf(headers: IncomingHttpHeaders): Pick<NewEntry, 'kind' | 'owner' | 'append'> {
  const value = (name: string) => one(headers[`x-lxd-${name}`] ?? headers[`x-incus-${name}`]);
  const kind = value('type') || 'file';
  if (!isKind(kind)) throw new ApiError(400, `Bad file type: ${kind}`);
  const write = value('write') || 'overwrite';
  if (write !== 'overwrite' && write !== 'append') throw new ApiError(400, `Bad file write mode: ${write}`);
  const owner = {
    ...idOf('uid', value('uid')),
    ...idOf('gid', value('gid')),
    ...modeOf(value('mode')),
  };
  return { kind, append: write === 'append', owner };
}

function isKind(kind: string): kind is NewEntry['kind'] {
  return kind === 'file' || kind === 'directory' || kind === 'symlink';
}

function one(value: string | string[] | undefined): string {
  return (Array.isArray(value) ? value[0] : value) ?? '';
}

/** -1 is "none", as Go's client has it. */
function idOf(name: 'uid' | 'gid', text: string): NewEntry['owner'] {
  if (text === '' || text === '-1') return {};
  const id = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(id <= MAX_ID)) throw new ApiError(400, `Bad file ${name}: ${text}`);
  return { [name]: id };
}

function modeOf(text: string): NewEntry['owner'] {
  if (text === '') return {};
  if (!/^0?[0-7]{1,4}$/.test(text)) throw new ApiError(400, `Bad file mode: ${text}`);
  return { mode: Number.parseInt(text, 8) };
}
