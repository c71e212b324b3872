// Moves of instances that boot from a volume: no data goes between hosts, the volume is connected where the guest is made anew.
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { guestData } from '../guest/guest-data.ts';
import { spawnSpec } from '../images/spawn-spec.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { ComputeServices } from '../types.ts';
import { blockDevicesOf } from '../volumes/block-devices.ts';
import { rootVolumeAmong } from '../volumes/root-volume.ts';
import { wasStopped } from './failing.ts';

type Instance = NovaObject<'Instance'>;

const DESTROY_LIMIT_MS = 300_000;

/** Whether the root of an instance is on a volume. */
export async function bootsFromVolume(
  { conductor }: Pick<ComputeServices, 'conductor'>,
  context: RequestContext,
  instance: Instance,
): Promise<boolean> {
  const devices = await blockDevicesOf({ conductor, context: context.elevated() }, instance.get('uuid'));
  return rootVolumeAmong(devices) !== undefined;
}

/** Ephemeral disks are of the host. */
export function refuseEphemerals(instance: Instance): void {
  if ((instance.get('flavor').find('ephemeral_gb') ?? 0) === 0) return;
  const reason = 'a server on a volume cannot take ephemeral disks to another host';
  throw novaException('MigrationPreCheckError', { reason });
}

/** The guest is made here, off when it was off. What an earlier try made goes first: nothing of the instance is in it. */
export async function arriveOnVolume(
  services: ComputeServices,
  { volumes, plugger }: Pick<OperationTools, 'volumes' | 'plugger'>,
  {
    context,
    instance,
    vifs,
  }: { readonly context: RequestContext; readonly instance: Instance; readonly vifs: readonly Vif[] },
  signal: AbortSignal,
): Promise<void> {
  const { virt, conductor } = services;
  const uuid = instance.get('uuid');
  const blockDevices = await blockDevicesOf({ conductor, context: context.elevated() }, uuid);
  const hooks = {
    network: (limit: AbortSignal) => plugger.plug(instance, vifs, limit),
    volumes: (limit: AbortSignal) => volumes.present(context, instance, limit),
    rootImage: (limit: AbortSignal) => volumes.rootImage(context, blockDevices, limit),
    guest: async (limit: AbortSignal) => {
      const wish = { image: { properties: {} }, files: [], adminPassword: null, blockDevices };
      return { ...(await guestData({ services, context, signal: limit }, instance, wish, vifs)), rootKey: null };
    },
  };
  await virt.destroy(uuid, limited(DESTROY_LIMIT_MS, signal));
  await virt.spawn(spawnSpec(instance, null, services, blockDevices), hooks, signal);
  if (wasStopped(instance)) await virt.powerOff(uuid, { graceSeconds: 0 }, signal);
}
