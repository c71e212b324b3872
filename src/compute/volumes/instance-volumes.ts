// Volumes of instances between Cinder and this host (section 8.5): what every operation that moves guests does with them. The
// callers hold the instance's lock.
import type { RequestContext } from '#src/nova/context.ts';
import { AppError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { isAbsent } from '#src/openstack/service.ts';
import { type GuestVolume, POWER_STATE, type SpawnImage } from '#drivers/virt/driver.ts';
import type { VolumeConnection } from '#drivers/volume/driver.ts';
import type { EventWatch } from '../events/event-inbox.ts';
import { inParallel } from '../in-parallel.ts';
import { userCredentials } from '../network/credentials.ts';
import type { ComputeServices } from '../types.ts';
import {
  type BlockDevice,
  blockDevicesOf,
  connectedAs,
  connectionOf,
  connectionText,
  keptConnection,
  volumesAmong,
} from './block-devices.ts';
import { chooseDeviceName, isDeviceName } from './device-names.ts';
import type { VolumeUse } from './host-volumes.ts';
import { isRoot, rootVolumeAmong, volumeImage } from './root-volume.ts';
import { settleSwap } from './settle-swap.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';
import { mountOf, readMountWish } from './volume-mounts.ts';

type Instance = NovaObject<'Instance'>;

const AT_ONCE = 4;

export class InstanceVolumes {
  readonly #services: ComputeServices;

  constructor(services: ComputeServices) {
    this.#services = services;
  }

  /** As they are when no swap of one is under way: what a killed process left of one is settled first. */
  async of(context: RequestContext, instance: Instance): Promise<readonly BlockDevice[]> {
    const { conductor } = this.#services;
    const elevated = context.elevated();
    const devices = volumesAmong(await blockDevicesOf({ conductor, context: elevated }, instance.get('uuid')));
    await this.#settleSwaps(elevated, instance, devices);
    return devices;
  }

  async #settleSwaps(context: RequestContext, instance: Instance, devices: readonly BlockDevice[]): Promise<void> {
    for (const device of devices) {
      await settleSwap(this.#services, { context, instance, device }, limited(UNDO_LIMIT_MS));
    }
  }

  /** Of swaps that a killed process left: the guest gets the volumes that Nova's records name, then Cinder is told. */
  async resumeSwaps(
    context: RequestContext,
    instance: Instance,
    devices: readonly BlockDevice[],
    signal: AbortSignal,
  ): Promise<void> {
    const { virt } = this.#services;
    const uuid = instance.get('uuid');
    const hasGuest = (await virt.powerState(uuid, signal)) !== POWER_STATE.nostate;
    for (const device of devices) {
      const volume = hasGuest && (await this.#presentOne(context, instance, device, signal));
      if (volume) await virt.attachVolume(uuid, volume, signal);
    }
    await this.#settleSwaps(context, instance, devices);
  }

  /** Tells Cinder where the volume will be used, and connects it here. Nothing is connected after a failure. */
  async connect(
    context: RequestContext,
    instance: Instance,
    device: BlockDevice,
    signal: AbortSignal,
  ): Promise<GuestVolume> {
    const { conductor, volumes } = this.#services;
    const volumeId = volumeOf(device);
    const offer = { volumeId, attachmentId: attachmentOf(device), guestPath: device.find('device_name') ?? null };
    const { connection, text } = await this.offered(context, instance, offer, signal);
    // before it is connected: whoever comes after a crash is to know
    device.set('connection_info', text);
    await conductor.save(context, device);
    return await this.guestVolume(context, instance, device, await volumes.connect(useOf(device), connection, signal));
  }

  /** A connected volume as the guest is to have it. */
  async guestVolume(
    context: RequestContext,
    instance: Instance,
    device: BlockDevice,
    hostPath: string,
  ): Promise<GuestVolume> {
    const guestPath = device.find('device_name');
    if (!isDeviceName(guestPath)) throw novaException('InvalidDevicePath', { path: guestPath ?? null });
    const { conductor } = this.#services;
    const mount = mountOf(await readMountWish({ conductor, context: context.elevated() }, instance), device);
    const { volumeId } = useOf(device);
    return { volumeId, hostPath, guestPath, ...(isRoot(device) && { isRoot: true }), ...(mount && { mount }) };
  }

  /** How Cinder lets this host reach a volume, and that as Nova keeps it. Rejects when the host cannot have it. */
  async offered(
    context: RequestContext,
    instance: Instance,
    { volumeId, attachmentId, guestPath }: VolumeOffer,
    signal: AbortSignal,
  ): Promise<{ readonly connection: VolumeConnection; readonly text: string }> {
    const { cinder, virt, connector } = this.#services;
    const credentials = userCredentials(context);
    const volume = await cinder.getVolume(credentials, volumeId, signal);
    if (volume.encrypted) {
      const params = { volume_type: volume.volumeType, volume_id: volume.id };
      throw novaException('VolumeEncryptionNotSupported', params);
    }
    if (volume.multiattach && !virt.info.capabilities.has('supports_multiattach')) {
      throw novaException('MultiattachNotSupportedByVirtDriver', { volume_id: volume.id });
    }
    this.#checkZone(instance, volume.availabilityZone);
    const facts = { ...(await connector(signal)), mountpoint: guestPath };
    const attachment = await cinder.updateAttachment(credentials, attachmentId, facts, signal);
    const connection = connectionOf(attachment.connectionInfo);
    if (!connection) throw novaException('InvalidVolume', { reason: `Cinder does not tell how to reach ${volume.id}` });
    const use = { volumeId, instanceUuid: instance.get('uuid') };
    return { connection, text: connectionText(connection, { ...use, isMultiattach: volume.multiattach }) };
  }

  /** What Cinder wrote to the root volume when it was made; null: nothing that it tells of. The volume is connected. */
  async rootImage(
    context: RequestContext,
    devices: readonly BlockDevice[],
    signal: AbortSignal,
  ): Promise<SpawnImage | null> {
    const root = rootVolumeAmong(devices);
    return root ? await volumeImage(this.#services, context, useOf(root), signal) : null;
  }

  /** The guest has it. */
  async complete(context: RequestContext, device: BlockDevice, signal: AbortSignal): Promise<void> {
    await this.#services.cinder.completeAttachment(userCredentials(context), attachmentOf(device), signal);
  }

  /** Here alone; Cinder is told by the caller. Absent is success. */
  async disconnect(device: BlockDevice, signal: AbortSignal): Promise<void> {
    await this.#services.volumes.disconnect(useOf(device), keptConnection(device), signal);
  }

  /**
   * All volumes that the instance is to have on this host, connected, whatever there was before: those that are connected from here
   * still are, those that were only reserved are connected anew. One whose attachment is gone belongs to somebody else by now, and
   * is not the instance's any more. One that was attached while the instance was nowhere gets its name now.
   */
  async present(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<readonly GuestVolume[]> {
    const devices = volumesAmong(await this.#named(context, instance));
    await this.#settleSwaps(context.elevated(), instance, devices);
    const found: (GuestVolume | undefined)[] = [];
    await inParallel([...devices.entries()], AT_ONCE, async ([index, device]) => {
      if ((device.find('volume_id') ?? null) === null || (device.find('attachment_id') ?? null) === null) return;
      found[index] = await this.#presentOne(context, instance, device, signal);
    });
    return found.filter((volume) => volume !== undefined);
  }

  async #named(context: RequestContext, instance: Instance): Promise<readonly BlockDevice[]> {
    const { conductor } = this.#services;
    const devices = await blockDevicesOf({ conductor, context: context.elevated() }, instance.get('uuid'));
    for (const device of volumesAmong(devices)) {
      if ((device.find('device_name') ?? null) !== null) continue;
      device.set('device_name', chooseDeviceName(instance, devices, null));
      await conductor.save(context, device);
    }
    return devices;
  }

  async #presentOne(
    context: RequestContext,
    instance: Instance,
    device: BlockDevice,
    signal: AbortSignal,
  ): Promise<GuestVolume | undefined> {
    const { volumes, cinder, conductor, log } = this.#services;
    const use = useOf(device);
    const connection = await this.#currentConnection(context, device, signal);
    if (connection === 'gone') {
      log.warn('the attachment of a volume is gone, and so is the volume from the instance', { ...use });
      await this.disconnect(device, signal);
      // that the volume is there says that it was Cinder who answered
      await cinder.getVolume(userCredentials(context), volumeOf(device), signal);
      await conductor.objectMethod(context.elevated(), device, { method: 'destroy' });
      return undefined;
    }
    if (connection)
      return await this.guestVolume(context, instance, device, await volumes.connect(use, connection, signal));
    const volume = await this.connect(context, instance, device, signal);
    await this.complete(context, device, signal);
    return volume;
  }

  /** null: reserved, and connected from nowhere. While Cinder cannot be asked, what Nova has kept holds. */
  async #currentConnection(
    context: RequestContext,
    device: BlockDevice,
    signal: AbortSignal,
  ): Promise<VolumeConnection | null | 'gone'> {
    const { cinder, log } = this.#services;
    try {
      const attachment = await cinder.getAttachment(userCredentials(context), attachmentOf(device), signal);
      return connectionOf(attachment.connectionInfo);
    } catch (error) {
      if (isAbsent(error)) return 'gone';
      const kept = keptConnection(device);
      if (signal.aborted || !kept) throw error;
      log.warn('Cinder cannot be asked for an attachment', { ...useOf(device), error });
      return kept;
    }
  }

  /**
   * The instance leaves this host and keeps its volumes: each is reserved anew, and disconnected here. Safe to repeat. What was
   * connected from a host that is lost is reserved anew as well.
   */
  async reserveAnew(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    for (const device of await this.of(context, instance)) await this.#reserveAnew(context, device, signal);
  }

  async #reserveAnew(context: RequestContext, device: BlockDevice, signal: AbortSignal): Promise<void> {
    const { cinder, conductor } = this.#services;
    const credentials = userCredentials(context);
    const { instanceUuid } = useOf(device);
    const volumeId = volumeOf(device);
    const old = device.find('attachment_id') ?? null;
    if (old === null) return;
    await this.disconnect(device, signal);
    const reservation = await cinder.createAttachment(credentials, { volumeId, instanceUuid }, signal);
    try {
      device.set('attachment_id', reservation).set('connection_info', null);
      await conductor.save(context, device);
    } catch (error) {
      await cinder.deleteAttachment(credentials, reservation, signal);
      throw error;
    }
    await cinder.deleteAttachment(credentials, old, signal);
  }

  /** Has Cinder write an image over the root volume, which is reserved all the while, and used by nobody. */
  async overwriteRoot(
    context: RequestContext,
    instance: Instance,
    { imageId, watch }: { readonly imageId: string; readonly watch: EventWatch },
    signal: AbortSignal,
  ): Promise<void> {
    const root = rootVolumeAmong(await this.of(context, instance));
    if (!root) throw new AppError('internal', 'there is no volume to write an image over');
    const volumeId = volumeOf(root);
    await this.#reserveAnew(context, root, signal);
    await this.#services.cinder.reimageVolume(userCredentials(context), { volumeId, imageId }, signal);
    const { status } = await watch.wait('volume-reimaged', volumeId, signal);
    if (status === 'failed')
      throw new AppError('unavailable', `Cinder could not write the image to volume ${volumeId}`);
  }

  /** The instance ends, or was never built: Cinder has its volumes back. `deletes`: those that are to end with it are deleted. */
  async giveBack(
    context: RequestContext,
    devices: readonly BlockDevice[],
    { deletes }: { readonly deletes: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    const { cinder, log } = this.#services;
    const credentials = userCredentials(context);
    for (const device of volumesAmong(devices)) {
      const volumeId = device.find('volume_id') ?? null;
      if (volumeId === null) continue;
      await this.disconnect(device, signal);
      const attachment = device.find('attachment_id') ?? null;
      if (attachment !== null) await cinder.deleteAttachment(credentials, attachment, signal);
      if (!deletes || device.find('delete_on_termination') !== true) continue;
      await cinder.deleteVolume(credentials, volumeId, signal).catch((error: unknown) => {
        log.warn('cannot delete a volume that was to end with its instance', { volume: volumeId, error });
      });
    }
  }

  #checkZone(instance: Instance, zone: string | null): void {
    const own = instance.find('availability_zone') ?? null;
    if (this.#services.config.cinder.crossAzAttach || own === null || zone === null || own === zone) return;
    const reason = `Instance and volume are not in the same availability zone. Instance is in ${own}. Volume is in ${zone}`;
    throw novaException('InvalidVolume', { reason });
  }
}

export interface VolumeOffer {
  readonly volumeId: string;
  readonly attachmentId: string;
  readonly guestPath: string | null;
}

function volumeOf(device: BlockDevice): string {
  return device.find('volume_id') ?? '';
}

/** Of what is connected here: under the name that the volume had then, which Cinder has changed since when it migrated the volume. */
export function useOf(device: BlockDevice): VolumeUse {
  return { volumeId: connectedAs(device) ?? volumeOf(device), instanceUuid: device.get('instance_uuid') };
}

/** AppError: it was attached in a way that is older than attachments. */
export function attachmentOf(device: BlockDevice): string {
  const id = device.find('attachment_id') ?? null;
  if (id !== null) return id;
  throw novaException('InvalidVolume', {
    reason: 'it is attached in a way older than attachments, which is not supported',
  });
}
