// The operations on instances as start-up, periodic tasks and RPC methods call them: each under the instance's lock.
import { AppError } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { InstanceBuilder } from './build/build-instance.ts';
import type { BuildRequest } from './build/request.ts';
import type { SerialConsoles } from './console/serial-consoles.ts';
import { ExternalEvents } from './events/external-events.ts';
import { setAdminPassword } from './guest/admin-password.ts';
import { InterfaceOperations } from './interfaces/interface-operations.ts';
import { type BackupWish, SnapshotOperations } from './images/snapshot-operations.ts';
import { Evacuation } from './images/evacuation.ts';
import { RebuildOperations, type RebuildWish } from './images/rebuild-operations.ts';
import { ShelveOperations, type ShelveWish } from './images/shelve-operations.ts';
import { UnshelveOperations } from './images/unshelve-operations.ts';
import { cachedVifs } from './network/info-cache.ts';
import type { NetworkWish } from './network/request.ts';
import { createOperationTools, type OperationTools } from './operation-tools.ts';
import { FreezeOperations } from './power/freeze-operations.ts';
import { PowerOperations, type RebootType } from './power/power-operations.ts';
import { abandonMove } from './resize/abandon-move.ts';
import { EndResize } from './resize/end-resize.ts';
import type { Move } from './resize/failing.ts';
import { type GuestOfPeer, GuestReceiver } from './resize/guest-receiver.ts';
import { type PrepRequest, PrepResize } from './resize/prep-resize.ts';
import { repeatStep } from './resize/repeat-step.ts';
import { ResizeGuest, type ResizeRequest } from './resize/resize-guest.ts';
import { RescueOperations, type RescueWish } from './rescue/rescue-operations.ts';
import { TerminateOperations } from './terminate/terminate-operations.ts';
import type { ComputeServices, InstanceOperations, MoveRecords, MoveStep } from './types.ts';
import type { BlockDevice } from './volumes/block-devices.ts';
import { type ReservationWish, VolumeOperations } from './volumes/volume-operations.ts';
import { type SwapWish, VolumeSwaps } from './volumes/volume-swaps.ts';

type Instance = NovaObject<'Instance'>;
type Context = RequestContext;

/** What the RPC methods need beyond what start-up and periodic tasks do. */
export interface ComputeOperations extends InstanceOperations {
  build(context: Context, request: BuildRequest): void;
  /** The VIF that came about, as Nova's API reads it. */
  attachInterface(context: Context, instance: Instance, wish: NetworkWish): Promise<unknown>;
  detachInterface(context: Context, instance: Instance, portId: string): Promise<void>;
  reserveVolume(context: Context, instance: Instance, wish: ReservationWish): Promise<BlockDevice>;
  attachVolume(context: Context, instance: Instance, device: BlockDevice): Promise<void>;
  detachVolume(context: Context, instance: Instance, which: Parameters<VolumeOperations['detach']>[2]): Promise<void>;
  swapVolume(context: Context, instance: Instance, wish: SwapWish): Promise<void>;
  removeVolumeConnection(
    context: Context,
    instance: Instance,
    which: Parameters<VolumeOperations['removeConnection']>[2],
  ): Promise<void>;
  snapshot(context: Context, instance: Instance, imageId: string): Promise<void>;
  backup(context: Context, instance: Instance, backup: BackupWish): Promise<void>;
  setAdminPassword(context: Context, instance: Instance, password: string): Promise<void>;
  rebuild(context: Context, instance: Instance, wish: RebuildWish): Promise<void>;
  rescue(context: Context, instance: Instance, wish: RescueWish): Promise<void>;
  shelve(context: Context, instance: Instance, wish: ShelveWish): Promise<void>;
  shelveOffload(context: Context, instance: Instance, cleanShutdown: boolean): Promise<void>;
  unshelve(context: Context, instance: Instance, image: Readonly<Record<string, unknown>>): Promise<void>;
  refreshNetwork(context: Context, instance: Instance): Promise<void>;
  prepResize(context: Context, request: PrepRequest): Promise<void>;
  resize(context: Context, request: ResizeRequest): Promise<void>;
  finishResize(context: Context, move: Move): Promise<void>;
  confirmResize(context: Context, move: Move): Promise<void>;
  revertResize(context: Context, move: Parameters<EndResize['revert']>[1]): Promise<void>;
  finishRevertResize(context: Context, move: Move): Promise<void>;
  /** What another compute of this kind asks: see resize/peer.ts. */
  receiveGuest(context: Context, guest: GuestOfPeer): Promise<string>;
  discardGuest(context: Context, uuid: string): Promise<void>;
  readonly events: ExternalEvents;
  readonly consoles: SerialConsoles;
}

export function createInstanceOperations(services: ComputeServices): ComputeOperations {
  return new LockedOperations(services, createOperationTools(services));
}

class LockedOperations implements ComputeOperations {
  readonly events: ExternalEvents;
  readonly consoles: SerialConsoles;
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #power: PowerOperations;
  readonly #freeze: FreezeOperations;
  readonly #interfaces: InterfaceOperations;
  readonly #volumes: VolumeOperations;
  readonly #swaps: VolumeSwaps;
  readonly #terminate: TerminateOperations;
  readonly #builder: InstanceBuilder;
  readonly #snapshots: SnapshotOperations;
  readonly #rebuilding: RebuildOperations;
  readonly #rescues: RescueOperations;
  readonly #shelving: ShelveOperations;
  readonly #unshelving: UnshelveOperations;
  readonly #prep: PrepResize;
  readonly #resize: ResizeGuest;
  readonly #resizeEnd: EndResize;
  readonly #evacuation: Evacuation;
  readonly #receiver: GuestReceiver;
  /** Ends what still waits when the process does. */
  readonly #end = new AbortController();

  constructor(services: ComputeServices, tools: OperationTools) {
    this.#services = services;
    this.#tools = tools;
    this.#power = new PowerOperations(services, tools);
    this.#freeze = new FreezeOperations(services, this.#power);
    this.#interfaces = new InterfaceOperations(services, tools);
    this.#volumes = new VolumeOperations(services, tools.volumes);
    this.#swaps = new VolumeSwaps(services, tools.volumes);
    this.#terminate = new TerminateOperations(services, tools);
    this.#builder = new InstanceBuilder(services, tools);
    this.#snapshots = new SnapshotOperations(services);
    this.#rebuilding = new RebuildOperations(services, tools, this.#power);
    this.#rescues = new RescueOperations(services, tools, this.#power);
    this.#shelving = new ShelveOperations(services, tools, this.#power);
    this.#unshelving = new UnshelveOperations(services, tools);
    this.#prep = new PrepResize(services);
    this.#resize = new ResizeGuest(services, tools, this.#power);
    this.#resizeEnd = new EndResize(services, tools, this.#power);
    this.consoles = tools.consoles;
    this.#evacuation = new Evacuation(services, tools, this.#power);
    this.#receiver = new GuestReceiver(services);
    this.events = new ExternalEvents(services, tools, (context, instance, volumeId) =>
      this.#locked(instance, (signal) => this.#volumes.extend(context, instance, volumeId, signal)),
    );
  }

  build(context: Context, request: BuildRequest): void {
    this.#builder.start(context, request);
  }

  async stop(context: Context, instance: Instance, cleanShutdown: boolean): Promise<void> {
    await this.#locked(instance, (signal) => this.#power.stop(context, instance, cleanShutdown, signal));
  }

  async start(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#power.start(context, instance, signal));
  }

  async reboot(context: Context, instance: Instance, type: RebootType): Promise<void> {
    await this.#locked(instance, (signal) => this.#power.reboot(context, instance, type, signal));
  }

  async pause(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#freeze.pause(context, instance, signal));
  }

  async unpause(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#freeze.unpause(context, instance, signal));
  }

  async suspend(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#freeze.suspend(context, instance, signal));
  }

  async resume(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#freeze.resume(context, instance, signal));
  }

  async attachInterface(context: Context, instance: Instance, wish: NetworkWish): Promise<unknown> {
    return await this.#locked(instance, (signal) => this.#interfaces.attach(context, instance, wish, signal));
  }

  async detachInterface(context: Context, instance: Instance, portId: string): Promise<void> {
    await this.#locked(instance, (signal) => this.#interfaces.detach(context, instance, portId, signal));
  }

  async softDelete(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#power.softDelete(context, instance, signal));
  }

  async restore(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#power.restore(context, instance, signal));
  }

  async snapshot(context: Context, instance: Instance, imageId: string): Promise<void> {
    await this.#snapshots.snapshot(context, instance, imageId, this.#end.signal);
  }

  async backup(context: Context, instance: Instance, wish: BackupWish): Promise<void> {
    await this.#snapshots.backup(context, instance, wish, this.#end.signal);
  }

  async setAdminPassword(context: Context, instance: Instance, password: string): Promise<void> {
    await this.#locked(instance, (signal) => setAdminPassword(this.#services, context, { instance, password }, signal));
  }

  async rebuild(context: Context, instance: Instance, wish: RebuildWish): Promise<void> {
    const operation = wish.isEvacuation
      ? this.#evacuation.evacuate.bind(this.#evacuation)
      : this.#rebuilding.rebuild.bind(this.#rebuilding);
    await this.#locked(instance, (signal) => operation(context, instance, wish, signal));
  }

  async rescue(context: Context, instance: Instance, wish: RescueWish): Promise<void> {
    await this.#locked(instance, (signal) => this.#rescues.rescue(context, instance, wish, signal));
  }

  async unrescue(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#rescues.unrescue(context, instance, signal));
  }

  async undoRescue(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#rescues.undo(context, instance, signal));
  }

  async shelve(context: Context, instance: Instance, wish: ShelveWish): Promise<void> {
    await this.#locked(instance, (signal) => this.#shelving.shelve(context, instance, wish, signal));
  }

  async shelveOffload(context: Context, instance: Instance, cleanShutdown: boolean): Promise<void> {
    await this.#locked(instance, (signal) => this.#shelving.offload(context, instance, cleanShutdown, signal));
  }

  async offloadShelved(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#shelving.offloadShelved(context, instance, signal));
  }

  async unshelve(context: Context, instance: Instance, image: Readonly<Record<string, unknown>>): Promise<void> {
    await this.#locked(instance, (signal) => this.#unshelving.unshelve(context, instance, image, signal));
  }

  async undoUnshelve(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, (signal) => this.#unshelving.undo(context, instance, signal));
  }

  async reserveVolume(context: Context, instance: Instance, wish: ReservationWish): Promise<BlockDevice> {
    return await this.#locked(instance, () => this.#volumes.reserve(context, instance, wish));
  }

  async attachVolume(context: Context, instance: Instance, device: BlockDevice): Promise<void> {
    await this.#locked(instance, (signal) => this.#volumes.attach(context, instance, device, signal));
  }

  async detachVolume(
    context: Context,
    instance: Instance,
    which: Parameters<VolumeOperations['detach']>[2],
  ): Promise<void> {
    await this.#locked(instance, (signal) => this.#volumes.detach(context, instance, which, signal));
  }

  async swapVolume(context: Context, instance: Instance, wish: SwapWish): Promise<void> {
    await this.#locked(instance, (signal) => this.#swaps.swap(context, instance, wish, signal));
  }

  async removeVolumeConnection(
    context: Context,
    instance: Instance,
    which: Parameters<VolumeOperations['removeConnection']>[2],
  ): Promise<void> {
    await this.#locked(instance, (signal) => this.#volumes.removeConnection(context, instance, which, signal));
  }

  /** A build of the instance that still runs is stopped, and waited for. */
  async terminate(context: Context, instance: Instance, devices?: readonly BlockDevice[]): Promise<void> {
    const uuid = instance.get('uuid');
    this.#tools.builds.interrupt(uuid);
    this.#tools.inbox.forget(uuid);
    this.#snapshots.interrupt(uuid);
    this.#swaps.interrupt(uuid);
    this.#shelving.interrupt(uuid);
    this.#resize.interrupt(uuid);
    await this.#locked(instance, () => this.#terminate.terminate(context, instance, devices));
  }

  async completeDeletion(context: Context, instance: Instance): Promise<void> {
    await this.#locked(instance, () => this.#terminate.completeDeletion(context, instance));
  }

  async plugInterfaces(_context: Context, instance: Instance, signal: AbortSignal): Promise<void> {
    await this.#locked(instance, async () => {
      await this.#tools.plugger.plug(instance, cachedVifs(instance), signal);
    });
  }

  async resumeSwaps(...of: Parameters<ComputeOperations['resumeSwaps']>): Promise<void> {
    await this.#locked(of[1], () => this.#tools.volumes.resumeSwaps(...of));
  }

  async resumeGuest(context: Context, instance: Instance, signal: AbortSignal): Promise<void> {
    const { virt, conductor } = this.#services;
    await this.#locked(instance, async () => {
      await this.#power.resume(context, instance, signal);
      instance.set('power_state', await virt.powerState(instance.get('uuid'), signal));
      await conductor.save(context, instance);
    });
  }

  async removeGuest(_context: Context, instance: Instance, signal: AbortSignal): Promise<void> {
    await this.#locked(instance, () => this.#terminate.removeGuest(instance, signal));
  }

  async prepResize(context: Context, request: PrepRequest): Promise<void> {
    await this.#locked(request.instance, () => this.#prep.prepare(context, request));
  }

  async resize(context: Context, request: ResizeRequest): Promise<void> {
    await this.#locked(request.instance, (signal) => this.#resize.resize(context, request, signal));
  }

  async finishResize(context: Context, move: Move): Promise<void> {
    await this.#locked(move.instance, (signal) => this.#resize.finish(context, move, signal));
  }

  async confirmResize(context: Context, move: Move): Promise<void> {
    await this.#locked(move.instance, (signal) => this.#resizeEnd.confirm(context, move, signal));
  }

  async revertResize(context: Context, move: Parameters<EndResize['revert']>[1]): Promise<void> {
    await this.#locked(move.instance, (signal) => this.#resizeEnd.revert(context, move, signal));
  }

  async finishRevertResize(context: Context, move: Move): Promise<void> {
    await this.#locked(move.instance, (signal) => this.#resizeEnd.finishRevert(context, move, signal));
  }

  async receiveGuest(context: Context, guest: GuestOfPeer): Promise<string> {
    return await this.#receiver.receive(context, guest, this.#end.signal);
  }

  async discardGuest(context: Context, uuid: string): Promise<void> {
    await this.#receiver.discard(context, uuid, this.#end.signal);
  }

  async abandonMove(context: Context, instance: Instance, signal: AbortSignal): Promise<void> {
    await this.#locked(instance, () => abandonMove(this.#services, context, instance, signal));
  }

  async repeatMoveStep(context: Context, step: MoveStep, move: MoveRecords): Promise<void> {
    const operations = { resize: this.#resize, end: this.#resizeEnd, evacuation: this.#evacuation };
    await this.#locked(move.instance, (signal) =>
      repeatStep(this.#services, operations, { context, step, move }, signal),
    );
  }

  async refreshNetwork(context: Context, instance: Instance): Promise<void> {
    await this.#tools.networks.refresh(context, instance, { signal: this.#end.signal });
  }

  cancelWaits(): void {
    this.#tools.inbox.cancelAll();
    this.#end.abort(new AppError('unavailable', 'the compute service stops'));
  }

  isBuilding(uuid: string): boolean {
    return this.#tools.builds.has(uuid);
  }

  async drain(signal: AbortSignal): Promise<void> {
    await this.#tools.builds.drain(signal);
  }

  async #locked<T>(instance: Instance, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return await this.#services.locks.run(instance.get('uuid'), () => work(this.#end.signal), this.#end.signal);
  }
}
