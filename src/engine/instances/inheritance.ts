// What a new instance takes from the image, instance or peer that it is made from.
import { randomUUID } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import type { InstanceRecord, SnapshotRecord } from '../db/records.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import type { CopiedInstance } from './copy.ts';
import { freshCloudInitId } from './cloud-init-id.ts';
import type { CreationPlan, CreationSource } from './creation.ts';

const MACHINES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64', ia32: 'i686', arm: 'armv7l' };

/** What the copy takes its settings from. */
function copiedOf({ record, snapshot }: CopiedInstance): InstanceRecord | SnapshotRecord {
  return snapshot ?? record;
}

export function inheritedDevices(source: CreationSource): DeviceMap {
  return source.type === 'copy' ? copiedOf(source).devices : {};
}

export function inheritedProfiles(source: CreationSource): readonly string[] {
  if (source.type === 'copy') return copiedOf(source).profiles;
  // None at all, when whoever made the image said so.
  if (source.type === 'image') return source.image.profiles;
  return ['default'];
}

/** image.* of the image; of a copied instance everything but what belongs to it alone. */
export function inheritedConfig(source: CreationSource): ConfigMap {
  if (source.type === 'none') return {};
  if (source.type === 'image') {
    const properties = Object.entries(source.image.properties).map(([key, value]) => [`image.${key}`, value] as const);
    return { ...Object.fromEntries(properties), 'volatile.base_image': source.image.fingerprint };
  }
  if (source.type === 'migration') return source.baseImage === '' ? {} : { 'volatile.base_image': source.baseImage };
  const kept = Object.entries(copiedOf(source).config).filter(
    ([key]) => !key.startsWith('volatile.') || key === 'volatile.base_image',
  );
  return Object.fromEntries(kept);
}

export function freshVolatile({ source }: CreationPlan) {
  return {
    'volatile.uuid': randomUUID() as string,
    ...freshCloudInitId(),
    'volatile.last_state.idmap': '[]',
    ...(source.type !== 'none' && { 'volatile.apply_template': source.type === 'image' ? 'create' : 'copy' }),
  };
}

export function architectureOf({ source, request }: CreationPlan): string {
  if (source.type === 'image') return source.image.architecture;
  if (source.type === 'copy') return copiedOf(source).architecture;
  if (source.type === 'migration' && request.architecture !== '') return request.architecture;
  return MACHINES[process.arch] ?? process.arch;
}

/** A 64-bit kernel runs 32-bit programs of its family. */
const RUNS: Readonly<Record<string, readonly string[]>> = {
  x64: ['x86_64', 'i686'],
  arm64: ['aarch64', 'armv8l', 'armv7l', 'armv6l'],
};

export function supported(architecture: string): string {
  if ((RUNS[process.arch] ?? [MACHINES[process.arch] ?? process.arch]).includes(architecture)) return architecture;
  throw new AppError('invalid', "Requested architecture isn't supported by this host");
}
