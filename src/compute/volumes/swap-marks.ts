// What Nova's record of a volume tells of a swap that is under way, so that whoever comes after a crash goes on with it, or undoes it.
import type { RequestContext } from '#src/nova/context.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import type { Conductor } from '#src/nova/types.ts';
import { type BlockDevice, infoOf, volumesAmong } from './block-devices.ts';

/** Our own among what Nova keeps of a connection. */
const SWAP = 'lightervisor_swap';

export interface SwapMark {
  /** The copy is whole, and the record names the new volume; else it names the old one. */
  readonly isCopied: boolean;
  /** Cinder moves the volume, and waits to hear how it ended. */
  readonly isMigration: boolean;
  /** The volume of the two that the record does not name. */
  readonly other: {
    readonly volumeId: string;
    /** Its name on this host. */
    readonly connectedAs: string;
    readonly attachmentId: string;
  };
}

/** null: no swap is under way. */
export function swapMarkOf(device: BlockDevice): SwapMark | null {
  return (infoOf(device.find('connection_info'))[SWAP] as SwapMark | undefined) ?? null;
}

/** What Nova keeps of a connection, with that mark or without one. */
export function withSwapMark(text: string, mark: SwapMark | null): string {
  const { [SWAP]: _earlier, ...info } = infoOf(text);
  return JSON.stringify({ ...info, ...(mark && { [SWAP]: mark }) });
}

/** Of these instances, in one call. */
export async function markedDevices(
  { conductor, context }: { readonly conductor: Conductor; readonly context: RequestContext },
  instanceUuids: readonly string[],
): Promise<readonly BlockDevice[]> {
  if (instanceUuids.length === 0) return [];
  const call = { object: 'BlockDeviceMappingList', method: 'get_by_instance_uuids', args: [instanceUuids] } as const;
  const devices = expectList(await conductor.classMethod(context, call), 'BlockDeviceMappingList');
  return volumesAmong(devices).filter((device) => swapMarkOf(device) !== null);
}
