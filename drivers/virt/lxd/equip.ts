// What a guest finds when it boots: interfaces, cloud-init's data, config drive, files. The container is there and does not run.
import type { EngineClient } from '#src/client/client.ts';
import type { DeviceMap } from '#src/client/wire.ts';
import { AppError, asError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { Reverter } from '#src/lib/reverter.ts';
import type { GuestData, GuestFile, GuestVolume, SpawnNic, SpawnSpec } from '../driver.ts';
import type { ConfigDrives } from './config-drives.ts';
import { GuestFiles } from './guest-files.ts';
import { cloudInitConfig, nicDevices } from './instance-body.ts';
import { volumeDevices } from './volumes.ts';

const UNDO_LIMIT_MS = 30_000;

export interface EquipContext {
  readonly client: EngineClient;
  /** Undefined: the engine is not on this machine. */
  readonly drives: ConfigDrives | undefined;
  readonly log: Log;
}

export interface Equipment {
  readonly nics: readonly SpawnNic[];
  readonly guest: GuestData | undefined;
  readonly volumes: readonly GuestVolume[];
}

export async function equip(
  context: EquipContext,
  { spec, revert }: { readonly spec: Pick<SpawnSpec, 'uuid' | 'name'>; readonly revert: Reverter },
  { nics, guest, volumes }: Equipment,
  signal: AbortSignal,
): Promise<void> {
  const { client } = context;
  const config = guest === undefined ? {} : cloudInitConfig(guest.cloudInit);
  const drive = await giveDrive(context, { spec, revert }, guest?.configDrive ?? null, signal);
  const devices = { ...nicDevices(nics), ...volumeDevices(volumes), ...drive };
  if (guest !== undefined || Object.keys(devices).length > 0)
    await client.instances.patch(spec.name, { config, devices }, signal);
  if (guest !== undefined) await giveFiles(context, spec, guest, signal);
}

/** The devices that show it; for the configuration of the guest. */
export async function giveDrive(
  { client, drives }: EquipContext,
  { spec, revert }: { readonly spec: Pick<SpawnSpec, 'uuid' | 'name'>; readonly revert: Reverter },
  tree: readonly GuestFile[] | null,
  signal: AbortSignal,
): Promise<DeviceMap> {
  if (tree === null) return {};
  if (!drives) throw new AppError('unsupported', 'a config drive needs the container engine on this host');
  revert.add('config drive', () => drives.remove(spec.uuid, AbortSignal.timeout(UNDO_LIMIT_MS)));
  await drives.write(spec.uuid, tree, signal);
  if (!drives.isMapped) await drives.own(spec.uuid, await client.instances.get(spec.name, signal));
  return await drives.devices(spec.uuid, signal);
}

async function giveFiles(
  { client, log }: EquipContext,
  { uuid, name }: Pick<SpawnSpec, 'uuid' | 'name'>,
  { files: list, rootKey }: GuestData,
  signal: AbortSignal,
): Promise<void> {
  const files = new GuestFiles(client, name);
  for (const file of list) await files.write(file, signal);
  if (rootKey === null) return;
  await files.addRootKey(rootKey, signal).catch((error: unknown) => {
    signal.throwIfAborted();
    log.warn('cannot give root the key of an instance', { instance: uuid, error: asError(error) });
  });
}
