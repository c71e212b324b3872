// Nova's record of a volume through a swap: of the old volume until the copy is whole, and of the new one from then on.
import type { RequestContext } from '#src/nova/context.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { BlockDevice } from './block-devices.ts';
import { attachmentOf, useOf } from './instance-volumes.ts';
import { type SwapMark, withSwapMark } from './swap-marks.ts';

export interface NewVolume {
  readonly volumeId: string;
  readonly attachmentId: string;
  readonly isMigration: boolean;
}

interface OldVolume {
  readonly volumeId: string;
  readonly attachmentId: string;
  readonly connectedAs: string;
  readonly text: string;
  readonly sizeGib: number | null;
  readonly snapshotId: string | null;
  readonly sourceType: string | null;
}

export class SwapRecord {
  readonly device: BlockDevice;
  readonly #conductor: Conductor;
  readonly #context: RequestContext;
  readonly #old: OldVolume;
  readonly #new: NewVolume;
  #isNew = false;

  constructor(
    { conductor, context }: { readonly conductor: Conductor; readonly context: RequestContext },
    device: BlockDevice,
    fresh: NewVolume,
  ) {
    this.device = device;
    this.#conductor = conductor;
    this.#context = context;
    this.#new = fresh;
    this.#old = {
      volumeId: device.get('volume_id') ?? '',
      attachmentId: attachmentOf(device),
      connectedAs: useOf(device).volumeId,
      text: device.get('connection_info') ?? '',
      sizeGib: device.find('volume_size') ?? null,
      snapshotId: device.find('snapshot_id') ?? null,
      sourceType: device.find('source_type') ?? null,
    };
  }

  /** Whether it may name the new volume: also when nobody knows what became of a save. */
  get isNew(): boolean {
    return this.#isNew;
  }

  /** With which it names the new volume. */
  get mark(): SwapMark {
    const { volumeId, attachmentId, connectedAs } = this.#old;
    const { isMigration } = this.#new;
    return { isCopied: true, isMigration, other: { volumeId, attachmentId, connectedAs } };
  }

  /** A swap is under way. */
  async open(): Promise<void> {
    await this.#nameOld(this.#openMark);
  }

  /** The copy is whole. */
  async goOver({ text, sizeGib }: { readonly text: string; readonly sizeGib: number }): Promise<void> {
    const { volumeId, attachmentId } = this.#new;
    this.#isNew = true;
    this.device.set('volume_id', volumeId).set('attachment_id', attachmentId).set('volume_size', sizeGib);
    this.device.set('snapshot_id', null).set('source_type', 'volume');
    await this.#save(withSwapMark(text, this.mark));
  }

  /** The guest is to have the old volume again. */
  async goBack(): Promise<void> {
    if (this.#isNew) await this.#nameOld(this.#openMark);
    this.#isNew = false;
  }

  /** The swap was undone. */
  async close(): Promise<void> {
    await this.#nameOld(null);
  }

  get #openMark(): SwapMark {
    const { volumeId, attachmentId, isMigration } = this.#new;
    return { isCopied: false, isMigration, other: { volumeId, attachmentId, connectedAs: volumeId } };
  }

  async #nameOld(mark: SwapMark | null): Promise<void> {
    const { volumeId, attachmentId, text, sizeGib, snapshotId, sourceType } = this.#old;
    this.device.set('volume_id', volumeId).set('attachment_id', attachmentId).set('volume_size', sizeGib);
    this.device.set('snapshot_id', snapshotId).set('source_type', sourceType);
    await this.#save(withSwapMark(text, mark));
  }

  async #save(text: string): Promise<void> {
    this.device.set('connection_info', text);
    await this.#conductor.save(this.#context, this.device);
  }
}
