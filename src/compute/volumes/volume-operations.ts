// What users do with volumes of an instance that is there (section 5.11). The callers hold the instance's lock.
import { kindOf, messageOf } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import { diskMetadata, forgetDisk, tellOfDevice } from '../guest/device-metadata.ts';
import { withActionEvent } from '../faults.ts';
import { userCredentials } from '../network/credentials.ts';
import type { ComputeServices } from '../types.ts';
import { type BlockDevice, blockDevicesOf, keptConnection } from './block-devices.ts';
import { chooseDeviceName } from './device-names.ts';
import { type InstanceVolumes, useOf } from './instance-volumes.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

type Instance = NovaObject<'Instance'>;

export interface ReservationWish {
  readonly volumeId: string;
  /** null: the next free name. */
  readonly device: string | null;
  readonly diskBus: string | null;
  readonly deviceType: string | null;
  readonly tag: string | null;
  readonly isMultiattach: boolean;
}

export class VolumeOperations {
  readonly #services: ComputeServices;
  readonly #volumes: InstanceVolumes;

  constructor(services: ComputeServices, volumes: InstanceVolumes) {
    this.#services = services;
    this.#volumes = volumes;
  }

  /** The block device that Nova's API then attaches, written down. */
  async reserve(context: RequestContext, instance: Instance, wish: ReservationWish): Promise<BlockDevice> {
    const { conductor, virt } = this.#services;
    const { volumeId, tag, isMultiattach } = wish;
    const { capabilities } = virt.info;
    if (tag !== null && !capabilities.has('supports_tagged_attach_volume')) {
      throw novaException('VolumeTaggedAttachNotSupported', {});
    }
    if (isMultiattach && !capabilities.has('supports_multiattach')) {
      throw novaException('MultiattachNotSupportedByVirtDriver', { volume_id: volumeId });
    }
    const devices = await blockDevicesOf({ conductor, context }, instance.get('uuid'));
    if (devices.some((device) => device.find('volume_id') === volumeId)) {
      throw novaException('InvalidVolume', { reason: `volume ${volumeId} already attached` });
    }
    const device = createObject('BlockDeviceMapping', {
      source_type: 'volume',
      destination_type: 'volume',
      instance_uuid: instance.get('uuid'),
      boot_index: null,
      volume_id: volumeId,
      device_name: chooseDeviceName(instance, devices, wish.device),
      guest_format: null,
      disk_bus: wish.diskBus,
      device_type: wish.deviceType,
      tag,
    });
    await conductor.objectMethod(context, device, { method: 'create' });
    return device;
  }

  /**
   * Nothing of it is left after a failure: the volume is available again. When that cannot be had now, because Cinder or the engine is
   * away, Nova goes on to know of the volume: who starts the instance anew attaches it, and who deletes it gives it back.
   */
  async attach(caller: RequestContext, instance: Instance, device: BlockDevice, signal: AbortSignal): Promise<void> {
    const { notifications, conductor, log } = this.#services;
    const context = caller.elevated();
    const { volumeId } = useOf(device);
    const moment = { name: 'volume_attach', volumeId, extra: { volume_id: volumeId } } as const;
    notifications.moment(context, instance, { ...moment, phase: 'start' });
    try {
      await this.#attach(context, instance, device, signal);
    } catch (cause) {
      log.error('cannot attach a volume', { instance: instance.get('uuid'), volume: volumeId, error: cause });
      const isUndone = await this.#undoAttach(context, instance, device);
      const reason = kindOf(cause) === 'internal' ? 'an internal error' : messageOf(cause);
      const error = novaException('VolumeAttachFailed', { volume_id: volumeId, reason }, { cause });
      notifications.moment(context, instance, { ...moment, phase: 'error', error });
      if (isUndone) await conductor.objectMethod(context, device, { method: 'destroy' });
      throw error;
    }
    notifications.moment(context, instance, { ...moment, phase: 'end' });
  }

  async #attach(context: RequestContext, instance: Instance, device: BlockDevice, signal: AbortSignal): Promise<void> {
    const volume = await this.#volumes.connect(context, instance, device, signal);
    await this.#services.virt.attachVolume(instance.get('uuid'), volume, signal);
    await this.#volumes.complete(context, device, signal);
    const tag = device.find('tag') ?? '';
    if (tag === '') return;
    const { conductor } = this.#services;
    await tellOfDevice({ conductor, context }, instance, diskMetadata(device, tag));
    await conductor.save(context, instance);
  }

  /** Each step by itself; but the attachment stays while this host might still use the volume. */
  async #undoAttach(context: RequestContext, instance: Instance, device: BlockDevice): Promise<boolean> {
    const { cinder, virt, log } = this.#services;
    const limit = limited(UNDO_LIMIT_MS);
    const { volumeId } = useOf(device);
    try {
      await virt.detachVolume(instance.get('uuid'), volumeId, limit).catch((error: unknown) => {
        if (kindOf(error) !== 'not_found' && kindOf(error) !== 'unsupported') throw error;
      });
      await this.#volumes.disconnect(device, limit);
      const attachment = device.find('attachment_id') ?? null;
      if (attachment !== null) await cinder.deleteAttachment(userCredentials(context), attachment, limit);
      return true;
    } catch (error) {
      log.error('a failed attachment is not wholly undone', { volume: volumeId, error });
      return false;
    }
  }

  /** `attachmentId`: what the API read. A failure leaves the volume in use. */
  async detach(
    caller: RequestContext,
    instance: Instance,
    { volumeId, attachmentId }: { readonly volumeId: string; readonly attachmentId: string | null },
    signal: AbortSignal,
  ): Promise<void> {
    const { cinder, notifications, conductor, log } = this.#services;
    const context = caller.elevated();
    const device = await this.#deviceOf(context, instance, volumeId);
    const moment = { name: 'volume_detach', volumeId, extra: { volume_id: volumeId } } as const;
    notifications.moment(context, instance, { ...moment, phase: 'start' });
    try {
      await this.#takeOut(instance, device, signal);
    } catch (cause) {
      log.error('cannot detach a volume', { instance: instance.get('uuid'), volume: volumeId, error: cause });
      await cinder
        .rollDetaching(userCredentials(context), volumeId, limited(UNDO_LIMIT_MS))
        .catch((error: unknown) => log.error('a volume stays in detaching', { volume: volumeId, error }));
      const reason = kindOf(cause) === 'internal' ? 'an internal error' : messageOf(cause);
      throw novaException('VolumeDetachFailed', { volume_id: volumeId, reason }, { cause });
    }
    const attachment = attachmentId ?? device.find('attachment_id') ?? null;
    if (attachment !== null) await cinder.deleteAttachment(userCredentials(context), attachment, signal);
    notifications.moment(context, instance, { ...moment, phase: 'end' });
    if ((device.find('tag') ?? '') !== '' && (await forgetDisk({ conductor, context }, instance, volumeId))) {
      await conductor.save(context, instance);
    }
    await conductor.objectMethod(context, device, { method: 'destroy' });
  }

  /** A guest that is not there has no volume. */
  async #takeOut(instance: Instance, device: BlockDevice, signal: AbortSignal): Promise<void> {
    const { virt } = this.#services;
    await virt.detachVolume(instance.get('uuid'), useOf(device).volumeId, signal).catch((error: unknown) => {
      if (kindOf(error) !== 'not_found') throw error;
    });
    await this.#volumes.disconnect(device, signal);
  }

  /** What is gone already is success. */
  async removeConnection(
    context: RequestContext,
    instance: Instance,
    { volumeId, deletesAttachment }: { readonly volumeId: string; readonly deletesAttachment: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    const devices = await this.#volumes.of(context, instance);
    const device = devices.find((one) => one.find('volume_id') === volumeId);
    if (!device) return;
    await this.#takeOut(instance, device, signal);
    const attachment = device.find('attachment_id') ?? null;
    if (!deletesAttachment || attachment === null) return;
    await this.#services.cinder.deleteAttachment(userCredentials(context), attachment, signal);
  }

  /** Cinder has made the volume larger: so is the device, in a running guest as well. */
  async extend(context: RequestContext, instance: Instance, volumeId: string, signal: AbortSignal): Promise<void> {
    const about = { context, instanceUuid: instance.get('uuid'), event: 'compute_extend_volume' };
    await withActionEvent(this.#services, about, async () => {
      const { cinder, conductor, virt, volumes } = this.#services;
      const device = await this.#deviceOf(context, instance, volumeId);
      const { sizeGib } = await cinder.getVolume(userCredentials(context), volumeId, signal);
      if (!virt.info.capabilities.has('supports_extend_volume')) throw novaException('ExtendVolumeNotSupported', {});
      device.set('volume_size', sizeGib);
      await conductor.save(context.elevated(), device);
      const connection = keptConnection(device);
      if (!connection) throw novaException('InvalidVolume', { reason: `volume ${volumeId} is not connected` });
      await volumes.extend(connection, signal);
    });
  }

  async #deviceOf(context: RequestContext, instance: Instance, volumeId: string): Promise<BlockDevice> {
    const devices = await this.#volumes.of(context, instance);
    const device = devices.find((one) => one.find('volume_id') === volumeId);
    if (device) return device;
    throw novaException('VolumeBDMNotFound', { volume_id: volumeId });
  }
}
