// Another flavor for an instance: its limits, its root disk, its ephemeral disks.
import type { EngineClient } from '#src/client/client.ts';
import type { Log } from '#src/lib/log.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { SpawnFlavor } from '../driver.ts';
import { changeInstance } from './change-instance.ts';
import type { Directory } from './directory.ts';
import { ephemeralDisks, fitEphemerals, removeDisks, withoutEphemerals } from './ephemeral-disks.ts';
import { rootDisk, withFlavor } from './instance-body.ts';
import { keepVolume } from './root-volume.ts';
import type { EngineSetup } from './setup.ts';

export interface ResizeContext {
  readonly client: EngineClient;
  readonly directory: Directory;
  readonly setup: EngineSetup;
  readonly log: Log;
}

export async function resize(
  { client, directory, setup, log }: ResizeContext,
  uuid: string,
  flavor: SpawnFlavor,
  signal: AbortSignal,
): Promise<void> {
  const { name, devices: present } = await directory.get(uuid, signal);
  await using revert = new Reverter(log);
  const disks = ephemeralDisks(present, uuid);
  const fitted = await fitEphemerals({ ...setup, client }, disks, { uuid, flavor, revert }, signal);
  await changeInstance(
    client,
    name,
    ({ config, devices }) => ({
      config: withFlavor(config, flavor, setup.policy),
      devices: {
        ...withoutEphemerals(devices, uuid),
        ...fitted.devices,
        root: keepVolume(rootDisk(flavor, setup), devices['root']),
      },
    }),
    signal,
  );
  revert.commit();
  await removeDisks(client, fitted.surplus, signal);
}
