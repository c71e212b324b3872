// The volumes of a build, made where they are to be new, and connected (section 5.2 step 10).
import { kindOf, messageOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { GuestVolume } from '#drivers/virt/driver.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { ComputeServices } from '../types.ts';
import { type BlockDevice, volumesAmong } from '../volumes/block-devices.ts';
import { ensureVolume } from '../volumes/new-volumes.ts';
import { isGone } from './failure.ts';
import type { BuildRequest } from './request.ts';

interface Parts extends Pick<OperationTools, 'volumes'> {
  readonly services: ComputeServices;
}

type Request = Pick<BuildRequest, 'instance' | 'blockDevices'>;

/** One after another: their back ends are slow, and those of an instance few. No other host would do better. */
export async function connectVolumes(
  parts: Parts,
  context: RequestContext,
  request: Request,
  signal: AbortSignal,
): Promise<readonly GuestVolume[]> {
  const { instance, blockDevices } = request;
  const connected: GuestVolume[] = [];
  try {
    for (const device of volumesAmong(blockDevices)) {
      connected.push(await connect(parts, context, { instance, device }, signal));
    }
  } catch (error) {
    signal.throwIfAborted();
    if (isGone(error)) throw error;
    parts.services.log.error('cannot connect the volumes of a build', { instance, error });
    const reason = `Failed to attach the volumes: ${kindOf(error) === 'internal' ? 'an internal error' : messageOf(error)}`;
    throw novaException('BuildAbortException', { instance_uuid: instance.get('uuid'), reason }, { cause: error });
  }
  return connected;
}

async function connect(
  { services, volumes }: Parts,
  context: RequestContext,
  { instance, device }: Pick<Request, 'instance'> & { readonly device: BlockDevice },
  signal: AbortSignal,
): Promise<GuestVolume> {
  await ensureVolume(services, context, { instance, device }, signal);
  const volume = await volumes.connect(context, instance, device, signal);
  await volumes.complete(context, device, signal);
  return volume;
}
