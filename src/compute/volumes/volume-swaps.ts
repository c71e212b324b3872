// Another volume in the place of one that an instance has (section 5.11): for users, and for Cinder, which moves volumes so between its
// back ends. A device of a container has no mirror of what is written, so the volume is taken out while it is copied; what the guest
// has open is not. The callers hold the instance's lock.
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { VolumeConnection } from '#drivers/volume/driver.ts';
import { userCredentials } from '../network/credentials.ts';
import type { ComputeServices } from '../types.ts';
import { type BlockDevice, keptConnection } from './block-devices.ts';
import { type InstanceVolumes, useOf } from './instance-volumes.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';
import { isRoot } from './root-volume.ts';
import { finishSwap, giveUpSwap } from './settle-swap.ts';
import { SwapRecord } from './swap-record.ts';

type Instance = NovaObject<'Instance'>;

const REPORT_MS = 10_000;

export interface SwapWish {
  readonly oldVolumeId: string;
  readonly newVolumeId: string;
  readonly newAttachmentId: string | null;
}

interface Swap {
  readonly context: RequestContext;
  readonly instance: Instance;
  readonly wish: SwapWish;
}

/** The two volumes on this host. */
interface Pair {
  readonly record: SwapRecord;
  /** What Nova is to keep of the new one's connection. */
  readonly text: string;
  readonly from: ReturnType<typeof useOf>;
  readonly to: ReturnType<typeof useOf>;
  readonly old: VolumeConnection;
  readonly fresh: VolumeConnection;
}

export class VolumeSwaps {
  readonly #services: ComputeServices;
  readonly #volumes: InstanceVolumes;
  /** By instance. */
  readonly #running = new Map<string, AbortController>();

  constructor(services: ComputeServices, volumes: InstanceVolumes) {
    this.#services = services;
    this.#volumes = volumes;
  }

  /** The instance is being deleted: nobody waits for a copy any more. */
  interrupt(uuid: string): void {
    this.#running.get(uuid)?.abort(novaException('InstanceNotFound', { instance_id: uuid }));
  }

  /** After a failure the guest has the old volume, and the new one is available; when the guest has the new one, it keeps that. */
  async swap(caller: RequestContext, instance: Instance, wish: SwapWish, outer: AbortSignal): Promise<void> {
    const { notifications, log } = this.#services;
    const uuid = instance.get('uuid');
    const context = caller.elevated();
    const moment = { name: 'volume_swap', volumeId: wish.oldVolumeId, newVolumeId: wish.newVolumeId } as const;
    notifications.moment(context, instance, { ...moment, phase: 'start' });
    const stop = new AbortController();
    this.#running.set(uuid, stop);
    const signal = AbortSignal.any([outer, stop.signal]);
    try {
      await this.#swap({ context, instance, wish }, signal);
    } catch (cause) {
      log.error('cannot swap a volume', { instance: uuid, ...wish, error: cause });
      const error = cause instanceof AppError ? cause : new AppError('internal', 'an internal error', { cause });
      notifications.moment(context, instance, { ...moment, phase: 'error', error });
      throw cause;
    } finally {
      this.#running.delete(uuid);
    }
    notifications.moment(context, instance, { ...moment, phase: 'end' });
  }

  async #swap(swap: Swap, signal: AbortSignal): Promise<void> {
    const { cinder, conductor } = this.#services;
    const { context, instance, wish } = swap;
    let isMigration = false;
    let record: SwapRecord | undefined;
    try {
      const status = (await cinder.getVolume(userCredentials(context), wish.oldVolumeId, signal)).migrationStatus;
      isMigration = status === 'migrating';
      const device = await this.#deviceOf(context, instance, wish.oldVolumeId);
      const { newVolumeId: volumeId, newAttachmentId: attachmentId } = wish;
      if (attachmentId === null) throw refused(`volume ${volumeId} is reserved in a way older than attachments`);
      record = new SwapRecord({ conductor, context }, device, { volumeId, attachmentId, isMigration });
      await this.#replace(swap, record, attachmentId, signal);
    } catch (cause) {
      await this.#giveUp(swap, record, isMigration);
      throw cause;
    }
    await finishSwap(this.#services, { context, instance, device: record.device }, record.mark, signal);
  }

  async #replace(
    { context, instance, wish }: Swap,
    record: SwapRecord,
    attachmentId: string,
    signal: AbortSignal,
  ): Promise<void> {
    const { cinder, log } = this.#services;
    const { newVolumeId: volumeId } = wish;
    const { device } = record;
    const old = keptConnection(device);
    if (!old) throw refused(`volume ${wish.oldVolumeId} is not connected`);
    await using revert = new Reverter(log);
    await record.open();
    const offer = { volumeId, attachmentId, guestPath: device.find('device_name') ?? null };
    const { connection: fresh, text } = await this.#volumes.offered(context, instance, offer, signal);
    const from = useOf(device);
    const pair = { record, text, from, to: { ...from, volumeId }, old, fresh };
    await this.#move({ context, instance }, pair, revert, signal);
    await cinder.completeAttachment(userCredentials(context), attachmentId, signal);
    revert.commit();
  }

  /** What cannot be undone now keeps its mark, by which it is gone on with when somebody asks for the volumes the next time. */
  async #giveUp({ context, wish }: Swap, record: SwapRecord | undefined, isMigration: boolean): Promise<void> {
    const { log } = this.#services;
    try {
      if (record?.isNew) throw new AppError('conflict', 'Nova may have the new volume in its record');
      if (await giveUpSwap(this.#services, context, { ...wish, isMigration })) await record?.close();
    } catch (error) {
      log.error('a swap of a volume can neither go on nor be undone now', { ...wish, error });
    }
  }

  async #deviceOf(context: RequestContext, instance: Instance, volumeId: string): Promise<BlockDevice> {
    const devices = await this.#volumes.of(context, instance);
    const device = devices.find((one) => one.find('volume_id') === volumeId);
    if (!device) throw novaException('VolumeBDMNotFound', { volume_id: volumeId });
    if (isRoot(device)) throw refused('the server runs from it, and it cannot be copied meanwhile');
    return device;
  }

  /** The guest has the new volume, with what the old one had, and the old one is disconnected. */
  async #move(
    { context, instance }: Pick<Swap, 'context' | 'instance'>,
    pair: Pair,
    revert: Reverter,
    signal: AbortSignal,
  ): Promise<void> {
    const { cinder, virt, volumes, log } = this.#services;
    const { record, from, to, old, fresh } = pair;
    const uuid = instance.get('uuid');
    const guest = await this.#volumes.guestVolume(context, instance, record.device, '');
    // of what is mounted the engine knows who uses it
    if (!guest.mount) await this.#refuseUsed(pair, signal);
    revert.add('new volume', () => volumes.disconnect(to, fresh, limited(UNDO_LIMIT_MS)));
    const hostPath = await volumes.connect(to, fresh, signal);
    revert.add('old volume', async () => {
      const limit = limited(UNDO_LIMIT_MS);
      // first: what the guest then writes must not be taken for what was copied
      await record.goBack();
      await virt.attachVolume(uuid, { ...guest, hostPath: await volumes.connect(from, old, limit) }, limit);
    });
    await virt.detachVolume(uuid, from.volumeId, signal);
    // opened between the first look and now: it still is
    await this.#refuseUsed(pair, signal);
    await volumes.copy({ from, to }, { signal, onProgress: reporter(log, { instance: uuid, from, to }) });
    const { sizeGib } = await cinder.getVolume(userCredentials(context), to.volumeId, signal);
    await record.goOver({ text: pair.text, sizeGib });
    await volumes.disconnect(from, old, signal);
    revert.add('new volume of the guest', () => virt.detachVolume(uuid, to.volumeId, limited(UNDO_LIMIT_MS)));
    await virt.attachVolume(uuid, { ...guest, hostPath, volumeId: to.volumeId }, signal);
  }

  async #refuseUsed({ from }: Pair, signal: AbortSignal): Promise<void> {
    const users = await this.#services.volumes.users(from, signal);
    if (users.length > 0) throw refused(`it is in use in the server (by ${users.join(', ')}): end that, or stop it`);
  }
}

function refused(reason: string): AppError {
  return novaException('InvalidVolume', { reason });
}

/** A copy may take hours: whoever reads the log sees how far it is. */
function reporter(log: Log, about: Readonly<Record<string, unknown>>) {
  let next = Date.now() + REPORT_MS;
  return ({ copiedBytes, totalBytes }: { readonly copiedBytes: number; readonly totalBytes: number }): void => {
    if (Date.now() < next) return;
    next = Date.now() + REPORT_MS;
    log.info('a volume is being copied', { ...about, percent: Math.floor((copiedBytes * 100) / totalBytes) });
  };
}
