// The ends of a swap of volumes, good and bad, in Cinder and in Nova's records. Each may be repeated: by the process that swaps, or by one
// that finds the mark which a killed one has left.
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { diskMetadata, forgetDisk, tellOfDevice } from '../guest/device-metadata.ts';
import { userCredentials } from '../network/credentials.ts';
import type { ComputeServices } from '../types.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';
import { type BlockDevice, renamedConnection } from './block-devices.ts';
import { type SwapMark, swapMarkOf, withSwapMark } from './swap-marks.ts';

type Services = Pick<ComputeServices, 'cinder' | 'conductor' | 'volumes' | 'log'>;

export interface MarkedVolume {
  readonly context: RequestContext;
  readonly instance: NovaObject<'Instance'>;
  readonly device: BlockDevice;
}

interface FailedSwap {
  readonly oldVolumeId: string;
  readonly newVolumeId: string;
  readonly newAttachmentId: string | null;
  readonly isMigration: boolean;
}

/** The guest has the old volume. In Cinder, each step by itself; false: something is left to undo. */
export async function giveUpSwap(
  { cinder, log }: Pick<Services, 'cinder' | 'log'>,
  context: RequestContext,
  { newAttachmentId, isMigration, ...wish }: FailedSwap,
): Promise<boolean> {
  const { oldVolumeId: volumeId, newVolumeId } = wish;
  const credentials = userCredentials(context);
  const limit = limited(UNDO_LIMIT_MS);
  const steps = [
    () => cinder.rollDetaching(credentials, volumeId, limit),
    async () => newAttachmentId !== null && cinder.deleteAttachment(credentials, newAttachmentId, limit),
    async () =>
      isMigration &&
      (await isMigrating(cinder, context, volumeId, limit)) &&
      cinder.completeMigration(credentials, { volumeId, newVolumeId, isFailed: true }, limit),
  ];
  let isUndone = true;
  for (const step of steps) {
    await step().catch((error: unknown) => {
      log.error('a failed swap is not wholly undone', { ...wish, error });
      isUndone = false;
    });
  }
  return isUndone;
}

/** The guest has the new volume: there is no way back, since it may have written to it. */
export async function finishSwap(
  services: Services,
  { context, instance, device }: MarkedVolume,
  mark: SwapMark,
  signal: AbortSignal,
): Promise<void> {
  const { cinder, conductor } = services;
  await cinder.deleteAttachment(userCredentials(context), mark.other.attachmentId, signal);
  if (mark.isMigration) await rename(services, { context, device }, mark, signal);
  await tell(services, { context, instance, device }, mark);
  device.set('connection_info', withSwapMark(device.get('connection_info') ?? '', null));
  await conductor.save(context, device);
}

/**
 * What a process that is no more has left half done in Cinder and in the records; the guest is the caller's. Nobody swaps meanwhile. A
 * failure leaves the mark: the next one who asks for the instance's volumes tries again.
 */
export async function settleSwap(services: Services, marked: MarkedVolume, signal: AbortSignal): Promise<void> {
  const mark = swapMarkOf(marked.device);
  if (!mark) return;
  const { log, volumes } = services;
  const about = { instance: marked.instance.get('uuid'), volume: marked.device.find('volume_id'), other: mark.other };
  log.info('the swap of a volume was interrupted', { ...about, isCopied: mark.isCopied });
  try {
    const use = { volumeId: mark.other.connectedAs, instanceUuid: marked.instance.get('uuid') };
    await volumes.disconnect(use, null, signal);
    await (mark.isCopied ? goOn : undo)(services, marked, mark, signal);
  } catch (error) {
    signal.throwIfAborted();
    log.error('an interrupted swap of a volume is not settled', { ...about, error });
  }
}

type Settling = (services: Services, marked: MarkedVolume, mark: SwapMark, signal: AbortSignal) => Promise<void>;

const goOn: Settling = async (services, marked, mark, signal) => {
  const { context, device } = marked;
  await services.cinder.completeAttachment(userCredentials(context), device.find('attachment_id') ?? '', signal);
  await finishSwap(services, marked, mark, signal);
};

const undo: Settling = async (services, { context, device }, { other, isMigration }) => {
  const oldVolumeId = device.find('volume_id') ?? '';
  const failed = { oldVolumeId, newVolumeId: other.volumeId, newAttachmentId: other.attachmentId, isMigration };
  if (!(await giveUpSwap(services, context, failed))) return;
  device.set('connection_info', withSwapMark(device.get('connection_info') ?? '', null));
  await services.conductor.save(context, device);
};

/** Cinder has the old volume's name go over to the new one. */
async function rename(
  { cinder, conductor }: Services,
  { context, device }: Pick<MarkedVolume, 'context' | 'device'>,
  { other: { volumeId } }: SwapMark,
  signal: AbortSignal,
): Promise<void> {
  const newVolumeId = device.find('volume_id') ?? '';
  if (newVolumeId === volumeId) return;
  const saved = (await isMigrating(cinder, context, volumeId, signal))
    ? await cinder.completeMigration(userCredentials(context), { volumeId, newVolumeId, isFailed: false }, signal)
    : volumeId;
  device.set('volume_id', saved).set('connection_info', renamedConnection(device.get('connection_info') ?? '', saved));
  await conductor.save(context, device);
}

/** Not any more once it has heard how the move ended. */
async function isMigrating(
  cinder: Services['cinder'],
  context: RequestContext,
  volumeId: string,
  signal: AbortSignal,
): Promise<boolean> {
  return (await cinder.getVolume(userCredentials(context), volumeId, signal)).migrationStatus === 'migrating';
}

/** Of a volume with a tag. */
async function tell(
  { conductor }: Services,
  { context, instance, device }: MarkedVolume,
  { other }: SwapMark,
): Promise<void> {
  const tag = device.find('tag') ?? '';
  if (tag === '') return;
  for (const id of [other.volumeId, device.find('volume_id') ?? '']) {
    await forgetDisk({ conductor, context }, instance, id);
  }
  await tellOfDevice({ conductor, context }, instance, diskMetadata(device, tag));
  await conductor.save(context, instance);
}
