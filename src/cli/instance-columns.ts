// The columns of `lighter list`.
import type { InstanceFull } from '#src/client/wire.ts';
import { formatBytes, formatTime } from './format.ts';
import type { Column, ColumnSet } from './table.ts';

function addresses(family: 'inet' | 'inet6'): (instance: InstanceFull) => string {
  return ({ state }) =>
    Object.entries(state?.network ?? {})
      .flatMap(([device, { addresses: all, type }]) =>
        type === 'loopback'
          ? []
          : (all ?? [])
              .filter((address) => address.family === family && address.scope !== 'link' && address.scope !== 'local')
              .map(({ address }) => `${address} (${device})`),
      )
      .sort()
      .reverse()
      .join('\n');
}

function isRunning({ status }: InstanceFull): boolean {
  return status !== 'Stopped';
}

function typeOf({ type, ephemeral }: InstanceFull): string {
  const name = type === 'virtual-machine' ? 'VIRTUAL-MACHINE' : 'CONTAINER';
  return ephemeral ? `${name} (EPHEMERAL)` : name;
}

function rootDisk({
  expanded_devices,
  devices,
}: InstanceFull): readonly [string, Readonly<Record<string, string>>] | undefined {
  return Object.entries(expanded_devices ?? devices).find(([, { type, path }]) => type === 'disk' && path === '/');
}

function diskUsage(instance: InstanceFull): string {
  const usage = instance.state?.disk?.[rootDisk(instance)?.[0] ?? '']?.usage;
  return usage === undefined || usage <= 0 ? '' : formatBytes(usage);
}

function memory({ state }: InstanceFull): number {
  return state?.memory?.['usage'] ?? 0;
}

/** Of its limit; empty without one, as only the engine knows the machine. */
function memoryShare(instance: InstanceFull): string {
  const limit = parseSize(configOf(instance, 'limits.memory'));
  return limit > 0 && memory(instance) > 0 ? `${((memory(instance) / limit) * 100).toFixed(1)}%` : '';
}

function parseSize(text: string): number {
  const [, amount = '', unit = ''] = /^(\d+)\s*([kMGTPE]?i?B?)$/.exec(text) ?? [];
  const power = 'kMGTPE'.indexOf(unit.charAt(0)) + 1;
  const base = unit.includes('i') ? 1024 : 1000;
  return amount === '' ? 0 : Number(amount) * base ** (unit === 'B' || unit === '' ? 0 : power);
}

function configOf(instance: InstanceFull, key: string): string {
  return (instance.expanded_config ?? instance.config)[key] ?? '';
}

export const INSTANCE_COLUMNS: ColumnSet<InstanceFull> = {
  '4': { header: 'IPV4', cell: addresses('inet') },
  '6': { header: 'IPV6', cell: addresses('inet6') },
  a: { header: 'ARCHITECTURE', cell: ({ architecture }) => architecture },
  b: { header: 'STORAGE POOL', cell: (instance) => rootDisk(instance)?.[1]['pool'] ?? '' },
  c: { header: 'CREATED AT', cell: ({ created_at }) => formatTime(created_at) ?? '' },
  d: { header: 'DESCRIPTION', cell: ({ description }) => description },
  D: { header: 'DISK USAGE', cell: diskUsage },
  e: { header: 'PROJECT', cell: ({ project }) => project ?? 'default' },
  f: { header: 'BASE IMAGE', cell: (instance) => configOf(instance, 'volatile.base_image').slice(0, 12) },
  F: { header: 'BASE IMAGE', cell: (instance) => configOf(instance, 'volatile.base_image') },
  l: { header: 'LAST USED AT', cell: ({ last_used_at }) => formatTime(last_used_at) ?? '' },
  L: { header: 'LOCATION', cell: ({ location }) => location },
  m: { header: 'MEMORY USAGE', cell: (instance) => (memory(instance) > 0 ? formatBytes(memory(instance)) : '') },
  M: { header: 'MEMORY USAGE%', cell: memoryShare },
  n: { header: 'NAME', cell: ({ name }) => name },
  N: { header: 'PROCESSES', cell: (instance) => (isRunning(instance) ? String(instance.state?.processes ?? '') : '') },
  p: { header: 'PID', cell: ({ state }) => ((state?.pid ?? 0) > 0 ? String(state?.pid) : '') },
  P: { header: 'PROFILES', cell: ({ profiles }) => (profiles ?? []).join('\n') },
  s: { header: 'STATE', cell: ({ status }) => status.toUpperCase() },
  S: { header: 'SNAPSHOTS', cell: ({ snapshots }) => String(snapshots?.length ?? 0) },
  t: { header: 'TYPE', cell: typeOf },
  u: {
    header: 'CPU USAGE',
    cell: ({ state }) => ((state?.cpu?.usage ?? 0) > 0 ? `${Math.floor((state?.cpu?.usage ?? 0) / 1e9)}s` : ''),
  },
};

/** `[config:|devices:]KEY[:HEADER[:MAXWIDTH]]` */
export function customColumn(text: string): Column<InstanceFull> {
  const parts = text.split(':');
  const kind = parts[0] === 'config' || parts[0] === 'devices' ? parts.shift() : 'config';
  const [key = '', header = '', width = '-1'] = parts;
  const title = header === '' ? key : header;
  const limit = Number(width) === 0 ? title.length : Number(width);
  const value = kind === 'devices' ? deviceValue(key) : (instance: InstanceFull) => configOf(instance, key);
  return {
    header: title.toUpperCase(),
    cell: (instance) => (limit > 0 ? value(instance).slice(0, limit) : value(instance)),
  };
}

function deviceValue(path: string): (instance: InstanceFull) => string {
  const at = path.lastIndexOf('.');
  const [device, key] = [path.slice(0, at), path.slice(at + 1)];
  return ({ expanded_devices, devices }) => (expanded_devices ?? devices)[device]?.[key] ?? '';
}
